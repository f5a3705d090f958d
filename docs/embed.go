// Package docs has the documents of this directory, so that the binary can show them where nothing else can be reached.
package docs

import "embed"

// Files are the pages, as Markdown.
//
//go:embed *.md adr/*.md
var Files embed.FS
