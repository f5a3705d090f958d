package kvtest_test

import (
	"testing"

	"rotatord/internal/kvstore"
	"rotatord/internal/kvstore/kvtest"
)

func TestSuite(t *testing.T) {
	kvtest.Run(t, func(*testing.T) kvtest.Place {
		var s kvtest.Server
		return kvtest.Place{Open: func() kvstore.KV { return s.Client(nil) }, Delete: s.Delete, Destroy: s.Destroy}
	})
}
