package sink

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestKept: a value is good for one write, and for three minutes after the last preflight.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k kept[string]
		want := func(value string, there bool) {
			t.Helper()
			if got, ok := k.take(); got != value || ok != there {
				t.Errorf("%q, %t; want %q, %t", got, ok, value, there)
			}
		}
		want("", false)
		k.keep("first")
		want("first", true)
		want("", false)
		k.keep("second")
		time.Sleep(keptFor - time.Second)
		k.keep("third")
		time.Sleep(keptFor - time.Second) // the end of the second one does not end the third
		synctest.Wait()
		want("third", true)
		k.keep("fourth")
		time.Sleep(keptFor)
		synctest.Wait()
		want("", false)
	})
}
