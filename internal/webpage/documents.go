package webpage

import (
	"bytes"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"

	"rotatord/deploy"
	"rotatord/docs"
)

// document is a page of the documents, ready to be shown.
type document struct {
	head
	Content  template.HTML // goldmark leaves out raw HTML
	Sections []section
}

// section is a heading that the list of contents has.
type section struct{ ID, Title string }

func (p *pages) serveDocument(w http.ResponseWriter, r *http.Request) {
	p.serveFile(w, "docs", r.PathValue("path"))
}

// serveGuide serves the guides of deploy and the files that they use: documents lead there with relative links.
func (p *pages) serveGuide(w http.ResponseWriter, r *http.Request) {
	p.serveFile(w, "deploy", r.PathValue("path"))
}

func (p *pages) serveFile(w http.ResponseWriter, under, name string) {
	switch {
	case name == "" || name == "adr/":
		name += "README.md"
	case strings.HasSuffix(name, "/"), path.Clean(name) != name:
		p.serveNotFound(w, "There is no such document.")
		return
	}
	name = under + "/" + name
	found, ok := p.rendered.Load(name)
	if !ok {
		source, err := readDocument(name)
		if err != nil {
			p.serveNotFound(w, "There is no such document in this version.")
			return
		}
		if !strings.HasSuffix(name, ".md") {
			source = []byte("# " + path.Base(name) + "\n\n```\n" + strings.ReplaceAll(string(source), "```", "` ` `") + "\n```\n")
		}
		found, _ = p.rendered.LoadOrStore(name, renderDocument(name, source))
	}
	d := *found.(*document)
	d.Version, d.Now = p.Version, p.Now().UTC()
	d.Path = "/docs/" + strings.TrimSuffix(strings.TrimPrefix(name, "docs/"), "README.md")
	render(w, http.StatusOK, "document.tmpl", d)
}

// readDocument returns a document by its path in the repository.
func readDocument(name string) ([]byte, error) {
	if inDeploy, is := strings.CutPrefix(name, "deploy/"); is {
		return fs.ReadFile(deploy.Files, inDeploy)
	}
	return fs.ReadFile(docs.Files, strings.TrimPrefix(name, "docs/"))
}

// renderDocument turns Markdown into a page. Links to files that are not served become plain text.
func renderDocument(name string, source []byte) *document {
	md := goldmark.New(goldmark.WithExtensions(extension.Table, extension.Strikethrough, extension.Linkify), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	root := md.Parser().Parse(text.NewReader(source), parser.WithContext(parser.NewContext(parser.WithIDs(&headingIDs{}))))
	d := &document{head: head{Title: name}}
	var unserved []ast.Node
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Heading:
			id, _ := n.AttributeString("id")
			idText, _ := id.([]byte)
			switch title := plainText(n, source); {
			case !entering:
			case n.Level == 1:
				d.Title = title
			case n.Level == 2:
				d.Sections = append(d.Sections, section{string(idText), title})
			}
		case *ast.Link:
			if entering && !served(name, string(n.Destination)) {
				unserved = append(unserved, n)
			}
		case *ast.Image:
			if entering {
				unserved = append(unserved, n)
			}
		}
		return ast.WalkContinue, nil
	})
	for _, n := range unserved {
		parent := n.Parent()
		for child := n.FirstChild(); child != nil; child = n.FirstChild() {
			parent.InsertBefore(parent, n, child)
		}
		parent.RemoveChild(parent, n)
	}
	var b bytes.Buffer
	_ = md.Renderer().Render(&b, source, root) // it does not fail on a buffer
	// A wide table or a block scrolls in a group that the keyboard reaches. A heading without a text heads nothing.
	html := strings.NewReplacer("<table>", `<div class="scroll" tabindex="0" role="group" aria-label="table"><table>`, "</table>", "</table></div>",
		"<th></th>", "<td></td>", "<th>", `<th scope="col">`, "<pre>", `<pre tabindex="0">`).Replace(b.String())
	d.Content = template.HTML(html) //nolint:gosec // made from our own documents, without raw HTML
	return d
}

// served reports whether a link in a document leads to something that a browser can open: another site, a part of this
// page, or a document.
func served(from, to string) bool {
	if strings.HasPrefix(to, "#") || strings.HasPrefix(to, "https://") {
		return true
	}
	file, _, _ := strings.Cut(to, "#")
	file = path.Join(path.Dir(from), file)
	_, err := readDocument(file)
	return err == nil && (strings.HasPrefix(file, "docs/") || strings.HasPrefix(file, "deploy/"))
}

// plainText returns the text of a heading.
func plainText(n ast.Node, source []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			b.Write(t.Segment.Value(source))
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// headingIDs makes the names of headings as GitHub does, which is what links in the documents use.
type headingIDs struct{ used map[string]bool }

// Generate implements [parser.IDs].
func (h *headingIDs) Generate(value []byte, _ ast.NodeKind) []byte {
	id := strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '-':
			return '-'
		case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, string(value))
	if h.used == nil {
		h.used = map[string]bool{}
	}
	for base, n := id, 1; h.used[id]; n++ {
		id = base + "-" + strings.Repeat("1", n)
	}
	h.used[id] = true
	return []byte(id)
}

// Put implements [parser.IDs].
func (h *headingIDs) Put([]byte) {}
