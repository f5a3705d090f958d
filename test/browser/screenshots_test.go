package browser

import (
	"bytes"
	"context"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"rotatord/internal/webpage/webpagetest"
)

var update = flag.Bool("update", false, "write the screenshots to docs/screenshots")

const (
	desk  = 1280
	phone = 390
)

// look sets the size of the window and the colours that a reader prefers, and opens a page.
func look(url string, width, height int64, dark bool) chromedp.Tasks {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	return chromedp.Tasks{
		emulation.SetDeviceMetricsOverride(width, height, 1, width == phone),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}),
		chromedp.Navigate(url),
		chromedp.WaitReady("main", chromedp.ByQuery),
	}
}

// TestScreenshots makes the pictures of the documents. Without -update it only proves that each page is drawn.
func TestScreenshots(t *testing.T) {
	b := open(t)
	for _, shot := range []struct {
		file          string
		sample        *webpagetest.Sample
		path          string
		width, height int64
		dark          bool
	}{
		{"tokens-6.png", webpagetest.Fleet(6), "/", desk, 900, false},
		{"tokens-300.png", webpagetest.Fleet(300), "/", desk, 1000, false},
		{"tokens-10000.png", webpagetest.Fleet(10000), "/", desk, 1000, false},
		{"trouble.png", webpagetest.Trouble(webpagetest.Fleet(300)), "/", desk, 1100, false},
		{"trouble-dark.png", webpagetest.Trouble(webpagetest.Fleet(300)), "/", desk, 1100, true},
		{"phone.png", webpagetest.Trouble(webpagetest.Fleet(12)), "/", phone, 1700, false},
		{"token.png", webpagetest.Trouble(webpagetest.Fleet(300)), "/tokens/ci-deploy", desk, 1300, false},
		{"runbook.png", webpagetest.Fleet(6), "/docs/runbook.md", desk, 800, false},
	} {
		server := serve(t, shot.sample)
		var picture []byte
		b.run(t, look(server.URL+shot.path, shot.width, shot.height, shot.dark),
			chromedp.ActionFunc(func(ctx context.Context) (err error) {
				picture, err = page.CaptureScreenshot().WithOptimizeForSpeed(false).Do(ctx)
				return err
			}))
		decoded, err := png.Decode(bytes.NewReader(picture))
		if err != nil {
			t.Fatalf("%s: %v", shot.file, err)
		}
		if size := decoded.Bounds(); size.Dx() != int(shot.width) || size.Dy() != int(shot.height) {
			t.Errorf("%s is %v", shot.file, size)
		}
		if *update {
			if err := os.WriteFile(filepath.Join("../../docs/screenshots", shot.file), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
