package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"rotatord/internal/httpapi"
	"rotatord/internal/status"
)

// TestPagesOfTheAPI: with limit and after the lists have pages, each of which names the next one. Without them they have all.
func TestPagesOfTheAPI(t *testing.T) {
	source := &fakeSource{}
	for i := range 25 {
		source.tokens = append(source.tokens, httpapi.TokenStatus{Name: fmt.Sprintf("token %02d", i), Gone: i == 3})
	}
	server := serve(t, source)
	next := regexp.MustCompile(`^<(/api/v1/[^>]*)>; rel="next"$`)
	for path, list := range map[string]func([]byte) (tokens []httpapi.TokenStatus, err error){
		"/api/v1/tokens": func(body []byte) (tokens []httpapi.TokenStatus, err error) {
			return tokens, json.Unmarshal(body, &tokens)
		},
		"/api/v1/status": func(body []byte) ([]httpapi.TokenStatus, error) {
			var o status.Overview
			err := json.Unmarshal(body, &o)
			if len(o.Troubles) != 1 || o.Troubles[0].Kind != "gone" {
				t.Errorf("a page has the troubles %+v", o.Troubles)
			}
			return o.Tokens, err
		},
	} {
		for query, sizes := range map[string][]int{"": {25}, "?other=1": {25}, "?limit=10": {10, 10, 5}, "?limit=25": {25}, "?limit=1000": {25}, "?after=token+19": {5}, "?after=x": {0}, "?limit=3&after=token+21": {3}, "?limit=0": {0}} {
			var names []string
			at := path + query
			for i, size := range sizes {
				res, body := request(t, server, http.MethodGet, at)
				tokens, err := list([]byte(body))
				if err != nil || len(tokens) != size {
					t.Fatalf("%s: %d tokens, want %d: %v", at, len(tokens), size, err)
				}
				for _, token := range tokens {
					names = append(names, token.Name)
				}
				link := next.FindStringSubmatch(res.Header.Get("Link"))
				if (link != nil) != (i < len(sizes)-1) {
					t.Fatalf("%s: Link is %q", at, res.Header.Get("Link"))
				}
				if link != nil {
					at = link[1]
				}
			}
			if query == "?limit=10" && (len(names) != 25 || names[0] != "token 00" || names[24] != "token 24") {
				t.Errorf("%s: %q", path, names)
			}
		}
		for _, query := range []string{"limit=-1", "limit=x", "limit=1001", "limit=1&limit=2", "after=a&after=b", "limit=", "limit=%zz"} {
			res, body := request(t, server, http.MethodGet, path+"?"+query)
			if code := res.StatusCode; code != http.StatusBadRequest || !strings.Contains(body, `"error": "`) {
				t.Errorf("%s?%s: %d %s", path, query, code, body)
			}
		}
	}
}

// countingSource counts the tokens that are read.
type countingSource struct {
	*fakeSource
	read int
}

func (s *countingSource) Token(name string) (httpapi.TokenStatus, bool) {
	s.read++
	return s.fakeSource.Token(name)
}

func (s *countingSource) TokensAfter(name string, n int) []httpapi.TokenStatus {
	tokens := s.fakeSource.TokensAfter(name, n)
	s.read += len(tokens)
	return tokens
}

func (s *countingSource) Tokens() []httpapi.TokenStatus {
	s.read += len(s.tokens)
	return s.tokens
}

// TestAPIReadsFewTokens: how many tokens an answer reads does not depend on how many there are, unless it is about all.
func TestAPIReadsFewTokens(t *testing.T) {
	for path, want := range map[string]int{"/api/v1/tokens/token-0003": 1, "/api/v1/status/token-0003": 1, "/tokens/token-0003": 1, "/api/v1/tokens?limit=20&after=token-0100": 21, "/api/v1/tokens/nosuch": 1} {
		for _, n := range []int{200, 800} {
			source := &countingSource{fakeSource: &fakeSource{}}
			for i := range n {
				source.tokens = append(source.tokens, httpapi.TokenStatus{Name: fmt.Sprintf("token-%04d", i)})
			}
			server := serve(t, source)
			request(t, server, http.MethodGet, path)
			if source.read != want {
				t.Errorf("%s reads %d of %d tokens, want %d", path, source.read, n, want)
			}
		}
	}
}
