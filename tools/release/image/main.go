// Command image writes the container image of a release, without a container engine: the binaries of each
// architecture, CA certificates and an empty state directory, with the configuration that
// deploy/docker/Dockerfile gives an image.
//
//	image -version v1.2.3 -revision COMMIT -created UNIX_SECONDS -out FILE amd64=BINARY [arm64=BINARY]
//
// The file is an OCI archive with one index over all architectures. It is also a Docker archive, in which the
// image of an architecture is tagged rotatord:VERSION-ARCH. The same arguments give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is who the image runs as: its number, because the image has no /etc/passwd.
const user = 65532

type release struct {
	version, revision string
	created           time.Time
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	version := flags.String("version", "", "the release, as v1.2.3")
	revision := flags.String("revision", "", "its commit")
	created := flags.Int64("created", 0, "the time of the commit, in seconds since 1970")
	out := flags.String("out", "", "the file to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *version == "" || *revision == "" || *created <= 0 || *out == "" || flags.NArg() == 0 {
		return fmt.Errorf("-version, -revision, -created, -out and at least one ARCH=BINARY are needed")
	}
	r := release{version: *version, revision: *revision, created: time.Unix(*created, 0).UTC()}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var docker []dockerImage
	for _, argument := range flags.Args() {
		arch, binary, found := strings.Cut(argument, "=")
		if !found {
			return fmt.Errorf("%q is not ARCH=BINARY", argument)
		}
		image, err := r.image(arch, binary)
		if err != nil {
			return fmt.Errorf("the image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
		d, err := dockerManifest(image, "rotatord:"+r.version+"-"+arch)
		if err != nil {
			return err
		}
		docker = append(docker, d)
	}
	return r.write(*out, index, docker)
}

// image returns the image of one architecture.
func (r release) image(arch, binary string) (v1.Image, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	base, err := r.layer([]tar.Header{
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/ssl/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/ssl/certs/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/ssl/certs/ca-certificates.crt", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/local/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/local/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "var/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "var/lib/", Typeflag: tar.TypeDir, Mode: 0o755},
		// A volume mounted here takes over this owner and mode.
		{Name: "var/lib/rotatord/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: user, Gid: user},
	}, certificates())
	if err != nil {
		return nil, err
	}
	top, err := r.layer([]tar.Header{{Name: "usr/local/bin/rotatord", Typeflag: tar.TypeReg, Mode: 0o755}}, program)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image,
		mutate.Addendum{Layer: base, MediaType: types.OCILayer, History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: "CA certificates and the state directory"}},
		mutate.Addendum{Layer: top, MediaType: types.OCILayer, History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: "rotatord " + r.version}})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", arch, v1.Time{Time: r.created}
	file.Config = v1.Config{
		User:         fmt.Sprintf("%d:%d", user, user),
		Entrypoint:   []string{"/usr/local/bin/rotatord"},
		Cmd:          []string{"run", "--config", "/etc/rotatord/config.yaml"},
		Env:          []string{"PATH=/usr/local/bin"},
		WorkingDir:   "/",
		ExposedPorts: map[string]struct{}{"9321/tcp": {}},
		Volumes:      map[string]struct{}{"/var/lib/rotatord": {}},
		// Docker knows it. The OCI format has no such thing, and podman wants it on its command line (docs/install.md).
		Healthcheck: &v1.HealthConfig{
			Test: []string{"CMD", "/usr/local/bin/rotatord", "healthcheck"}, Interval: 30 * time.Second, Timeout: 10 * time.Second, StartPeriod: time.Minute, Retries: 3,
		},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "rotatord",
			"org.opencontainers.image.description": "Rotates the client secrets of Cloudflare Access service tokens",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     r.version,
			"org.opencontainers.image.revision":    r.revision,
		},
	}
	return mutate.ConfigFile(image, file)
}

// layer returns a layer of these files. All regular files among them have the given content.
func (r release) layer(headers []tar.Header, content []byte) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.ModTime, h.Format = r.created, tar.FormatUSTAR
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(content); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
}

// certificates returns Mozilla's roots as PEM, at the version that go.mod pins: those of the machine that builds would
// not be the same everywhere. A root that Mozilla trusts with restrictions only is left out, because the
// file cannot express them.
func certificates() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes everything
		}
	}
	return b.Bytes()
}

// dockerImage is an entry of manifest.json, from which `docker load` works where it does not read OCI archives.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func dockerManifest(image v1.Image, tag string) (dockerImage, error) {
	path := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	manifest, err := image.Manifest()
	if err != nil {
		return dockerImage{}, err
	}
	d := dockerImage{Config: path(manifest.Config.Digest), RepoTags: []string{tag}}
	for _, l := range manifest.Layers {
		d.Layers = append(d.Layers, path(l.Digest))
	}
	return d, nil
}

// write puts the index with all that it refers to into a tar file, and prints its digest: what a registry will name it.
func (r release) write(out string, index v1.ImageIndex, docker []dockerImage) error {
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": r.version, "io.containerd.image.name": "rotatord:" + r.version,
	})); err != nil {
		return err
	}
	manifest, err := json.Marshal(docker)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o644); err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error { // in lexical order
		if err != nil || file == dir {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		h := tar.Header{Name: filepath.ToSlash(name), ModTime: r.created, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Mode: 0o644}
		if entry.IsDir() {
			h.Name, h.Typeflag, h.Mode = h.Name+"/", tar.TypeDir, 0o755
			return w.WriteHeader(&h)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(out, b.Bytes(), 0o644); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("image: %s has the index %s, file sha256:%x\n", filepath.Base(out), digest, sha256.Sum256(b.Bytes()))
	return nil
}
