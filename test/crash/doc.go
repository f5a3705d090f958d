// Package crash kills the real daemon at every step of a rotation, while Cloudflare and
// Vault misbehave, and holds what is left against the truth.
//
// The daemon is the real binary, built with the tag failpoint so that SIGKILL strikes at an
// exact step; Vault is the real one; Cloudflare is the simulator, which lives in the test
// process so that its truth is at hand. A round of the matrix kills a daemon of one token at one
// point; a random round kills one of three tokens several times, at points and at moments. A token
// is one that is rotated, a pair, one that is made at the first start, or one of a zone that is
// replaced each time, and its new secrets may be tried at an application that refuses them for
// a while. Some rounds of the matrix are about the end of an extended grace: one answer is lost, and
// when the reissue is due the sink is away for short times, so that preflights fail in a row, and the
// daemon is killed then. Then everything is healthy again, the daemon is started once more, and when each of its
// tokens was rotated again, and what it replaced is deleted, it is stopped and an oracle judges. It knows what the simulator did and when,
// Vault's version history, the logs of every incarnation and the state directory, and holds that
//
//  1. Vault holds a credential that the application accepts;
//  2. every secret that Cloudflare issued reached Vault, or its token was raised as in doubt
//     before the next request was sent; and one that arrived whole was lost to a SIGKILL
//     between the answer and the seal, or failed validation and is sealed, and in no other way;
//  3. no rotate was repeated while the secret that consumers had still worked, except in the
//     last quarter of its grace; none cut a promised grace short; each asked for the grace that
//     was configured; no slot was served twice;
//  4. nothing is left pending but answers that failed validation, and every record is at rest;
//  5. consumers were refused only where a grace of 0 or a lost answer of a single token makes
//     it unavoidable, and never with a pair or one that is replaced; or where
//     nobody was there to deliver for half a grace, on a machine that is slow: such are counted;
//     and after one lost answer, unless the next one is lost as well, they were refused for no longer
//     than a restart and a few seconds;
//  6. what others keep beside the credential is still there;
//  7. no secret stands in a log or in a file of the state directory;
//  8. of what is made none too many is left, each entry's first one is made once, none is deleted
//     that Vault still holds or before the grace is over, and a zone's is never rotated;
//  9. a secret that was to be tried, and was delivered, was accepted there before the next one.
//
// TestOracle breaks something on purpose, in one way for each of these rules, and fails if the
// oracle does not find it. With the seal left out of the whole matrix (make crash-proof) it has
// to find violations too.
//
// What this does not prove: a power failure (the kernel outlives the daemon here, so an fsync
// that is missing would not show); that the simulator is like Cloudflare; and the real bound of
// a rotate request, which is 20 s and is shortened here.
package crash
