package replicas

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

// request is a rotate request that arrived at Cloudflare.
type request struct {
	at       time.Time
	replica  *replica
	life     *process // that opened its connection
	subject  *subject
	tokenID  string
	intent   save // the last one of that replica for that token; zero if there is none
	before   cfsim.Token
	after    cfsim.Token
	issued   secret.Digest
	value    string
	answered bool // the answer was written whole
	fault    string
	done     time.Time
}

func (r *request) carriedOut() bool { return r.after.Rotations > r.before.Rotations }

// What happens to answers that are lost. The request was carried out.
var lostAnswers = []string{"connection broken", "cut in the body", "500 after", "no answer"}

// lifeKey is the key of the life that opened the connection of a request, in the context of the request. A process may be
// dead, and the next one live, when a request of it arrives.
type lifeKey struct{}

// serveCloudflare is Cloudflare as one replica reaches it.
func (r *replica) serveCloudflare(rw http.ResponseWriter, in *http.Request) {
	if r.cloudflare.pass(in.Context()) != nil {
		panic(http.ErrAbortHandler)
	}
	id, rotates := strings.CutSuffix(in.URL.Path, "/rotate")
	id = id[strings.LastIndexByte(id, '/')+1:]
	answer := httptest.NewRecorder()
	if s := r.w.byTokenID[id]; rotates && s != nil {
		r.rotate(rw, in, s, id, answer)
		return
	}
	r.w.sim.ServeHTTP(answer, in)
	_, _ = r.answer(in.Context(), rw, answer, "")
}

func (r *replica) rotate(rw http.ResponseWriter, in *http.Request, s *subject, id string, answer *httptest.ResponseRecorder) {
	w := r.w
	req := &request{replica: r, life: in.Context().Value(lifeKey{}).(*process), subject: s, tokenID: id}
	s.mu.Lock() // what was before and after belongs to this request
	req.at = time.Now()
	req.before, _ = w.sim.Token(id)
	w.sim.ServeHTTP(answer, in)
	req.after, _ = w.sim.Token(id)
	if req.carriedOut() {
		all := w.sim.Secrets(id)
		last := all[len(all)-1]
		req.issued, req.value = last.Digest, last.Value.Reveal()
		req.fault = w.losesAnswer()
	}
	w.mu.Lock()
	req.intent = w.intents[intentKey{r.name, s.name}]
	w.requests = append(w.requests, req)
	w.mu.Unlock()
	s.mu.Unlock()
	whole, err := r.answer(in.Context(), rw, answer, req.fault)
	w.mu.Lock()
	req.answered, req.done = whole && err == nil, time.Now()
	w.mu.Unlock()
	if !req.answered {
		panic(http.ErrAbortHandler)
	}
}

// answer writes an answer to a replica, or loses it.
func (r *replica) answer(ctx context.Context, rw http.ResponseWriter, answer *httptest.ResponseRecorder, fault string) (whole bool, err error) {
	if err := r.cloudflare.pass(ctx); err != nil {
		panic(http.ErrAbortHandler)
	}
	body := answer.Body.Bytes()
	switch fault {
	case "connection broken":
		return false, nil
	case "no answer":
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
		}
		return false, nil
	case "500 after":
		rw.WriteHeader(http.StatusInternalServerError)
		return false, http.NewResponseController(rw).Flush()
	}
	maps.Copy(rw.Header(), answer.Header())
	if fault == "cut in the body" {
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(body[:len(body)/3])
		return false, http.NewResponseController(rw).Flush()
	}
	rw.WriteHeader(answer.Code)
	if _, err := rw.Write(body); err != nil {
		return false, err
	}
	return true, nil
}

// losesAnswer decides about the answer of a rotation that was carried out.
func (w *world) losesAnswer() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rand.Float64() >= w.loss {
		return ""
	}
	w.tally.lostAnswers++
	return lostAnswers[rand.IntN(len(lostAnswers))]
}
