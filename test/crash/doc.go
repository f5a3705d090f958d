// Package crash kills the real daemon at every step of a rotation, while Cloudflare and
// Vault misbehave, and compares what is left with the truth.
//
// The daemon is the real binary, built with the tag failpoint so that SIGKILL comes at an
// exact step. Vault is the real one. Cloudflare is the simulator, which runs in the test
// process, so that the test knows the truth.
//
// A round of the matrix kills a daemon with one token at one point. A random round kills a
// daemon with three tokens several times, at points and at moments. A token is one that is
// rotated, a pair, one that is created at the first start, or one of a zone that is replaced
// each time. Its new secrets may be tried at an application that refuses them for a while.
// Some rounds of the matrix are about the end of an extended grace: one answer is lost, and
// when the reissue is due the sink is away for short times, so that preflights fail in a row,
// and the daemon is killed then.
//
// At the end of a round everything is healthy again and the daemon is started again. When each
// of its tokens was rotated again, and each replaced service token was deleted, the daemon is
// stopped, and an oracle checks the result. The oracle knows what the simulator did and when,
// Vault's version history, the logs of every life of the daemon, and the state directory. It
// checks that
//
//  1. Vault holds a credential that the application accepts;
//  2. every secret that Cloudflare issued reached Vault, or its token was reported as in doubt
//     before the next request was sent; and a secret that arrived complete was lost only by a
//     SIGKILL between the answer and the seal, or because it failed validation and is sealed;
//  3. no rotate was repeated while the secret that consumers had still worked, except in the
//     last quarter of its grace; none cut a promised grace short; each asked for the configured
//     grace; no slot was served twice;
//  4. nothing is left pending but answers that failed validation, and every record is idle;
//  5. consumers were refused only where a grace of 0 or a lost answer of a single token makes
//     it unavoidable, and never with a pair or a replaced token; or where no daemon ran for half
//     a grace, on a slow machine (the tally counts these); and after one lost answer, unless the
//     next one is lost as well, they were refused for no longer than a restart and a few seconds;
//  6. what others keep beside the credential is still there;
//  7. no secret is in a log or in a file of the state directory;
//  8. no service token too many is left, each entry's first one is created once, none is deleted
//     that Vault still holds or before the grace is over, and a zone's is never rotated;
//  9. a secret that had to be tried, and was delivered, was accepted before the next one.
//
// TestOracle breaks something on purpose, in one way for each of these rules, and fails if the
// oracle does not find it. Without the seal, the whole matrix (make crash-proof) has to find
// violations too.
//
// What this does not prove: a power failure (the kernel does not die here, so a missing fsync
// would not show); that the simulator is like Cloudflare; and the real bound of a rotate
// request, which is 20 s and is shorter here.
package crash
