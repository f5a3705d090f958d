// Package admission decides in which order work begins, and how fast requests leave for Cloudflare.
//
// There are two stages, because a rotation must not claim its slot while it can only wait. First a
// token that is due asks for a turn ([Turns]): turns are given by urgency, and only as many as the
// budget can serve soon. Then each request of a rotation, and each request without a turn (listings,
// look-ahead checks), is admitted by the budget of its credential ([Budget]), again by urgency. Because
// turns ask the budget first, hardly any rotation waits in the second stage.
//
// Three things decide how fast requests leave: what Cloudflare reports (reported.go), what other users
// of the credential use (others.go), and how we pace what is left (pace.go).
//
// Guarantees:
//
//   - At most requests_per_5m requests are at Cloudflare within any five minutes: see [Budget].
//   - After a 429, nothing is sent before the time that Cloudflare named.
//   - While Cloudflare says that plenty is left, a request leaves within seconds. No estimate can stop
//     the daemon.
//   - An emergency, which is a token whose consumers may be cut off, goes first and waits only for
//     requests_per_5m and a 429.
package admission
