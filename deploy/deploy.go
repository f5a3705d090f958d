// Package deploy has the guides of this directory and the files that they use, so that the binary can show them where
// nothing else can be reached.
package deploy

import "embed"

// Files are guides, as Markdown, and the policies for Vault.
//
//go:embed helm/rotatord/README.md kubernetes/README.md packages/INSTALLED.md systemd/README.md systemd/rotatord.service vault/README.md vault/*.hcl
var Files embed.FS
