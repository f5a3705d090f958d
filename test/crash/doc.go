// Package crash kills the real daemon at every step of a rotation, while Cloudflare and
// Vault misbehave, and holds what is left against the truth.
//
// The daemon is the real binary, built with the tag failpoint so that SIGKILL strikes at an
// exact step; Vault is the real one; Cloudflare is the simulator, which lives in the test
// process so that its truth is at hand. After each round everything is healthy again, the
// daemon is started once more, and when its tokens are at rest an oracle judges from the
// outside: the simulator's truth, Vault's version history, the logs of every incarnation and
// the state directory. It holds that
//
//  1. Vault holds a credential that the application accepts;
//  2. every secret that Cloudflare ever issued is accounted for: it reached Vault, it is
//     sealed on disk, or its rotation was raised as in doubt;
//  3. no rotate was repeated while the secret that consumers had still worked, except at the
//     end of its grace, and no slot was served twice;
//  4. nothing is left pending but answers that failed validation, and every record is at rest;
//  5. consumers were refused only where a grace of 0 or a lost answer of a single token makes
//     it unavoidable, and never with a pair;
//  6. what others keep beside the credential is still there;
//  7. no secret stands in a log.
//
// What it does not prove: a power failure (the kernel outlives the daemon here, so an fsync
// that is missing would not show), and that the simulator is like Cloudflare.
package crash
