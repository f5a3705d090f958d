// Package replicas lets three replicas work on the same tokens, on three real Vaults, while all of them are killed,
// suspended and separated from each other, and compares what is left with the truth.
//
// The replicas are the real binary with state.shared, each with a state directory of its own, and one age identity. The
// Vaults are real cores on Raft storage. They reach each other through proxies of the test, which know who calls, so that
// one member can be separated from another. Each replica reaches Vault through a balancer of its own and Cloudflare
// through a server of its own, so that the test can take away any of its ways. Cloudflare is the simulator. It runs in the
// process of the test, which so has a protocol of all that was carried out and answered, in order.
//
// These faults happen at random moments, by a seed, and several at once:
//
//   - a replica is killed and started again, with its disk or with an empty one; it is suspended (SIGSTOP) for longer than
//     its claim, at any moment or exactly when its intent is saved; all replicas are stopped and started again in turn;
//   - a Vault is killed, or suspended, and comes back; the leader is separated from its peers;
//   - a replica is separated from one, two or all Vaults, or from Cloudflare: refused, or without any answer; its
//     requests are slow, or the answers of Vault are lost;
//   - Cloudflare's answers to rotate requests are lost: the connection breaks, or within the body, or it is a 500, or none
//     comes.
//
// The oracle knows what Cloudflare carried out, each record that a replica tried to save, the versions in Vault, the logs
// of every life, and what consumers saw. It checks that
//
//  1. no rotate request was sent without an intent in the shared ledger, and each slot was served at most once: a second
//     request for a slot comes only after a doubt about the first one was raised;
//  2. each secret that Cloudflare issued reached Vault, or a doubt or a late answer was told about it; and one that was
//     answered completely reached Vault unless the process that got it was killed before it could seal it, lost its
//     disk, or was too late and a later secret took its place;
//  3. no version in Vault is older than the one before it, in the order in which Cloudflare issued them;
//  4. consumers were refused only where that is unavoidable. A token without a grace: from a rotation on until its secret
//     is in Vault. One with a grace: after two rotations whose secrets are not in Vault, because Cloudflare keeps one
//     previous secret and the first of the two was lost; or if the test itself could not write to Vault for more than half
//     of the grace. One of a pair: never;
//  5. no promised grace was cut short;
//  6. at the end each record is idle, no token is held, no copy of an answer is left, and on the disks only late answers of
//     which it was told that a later secret took their place; and all replicas show the same;
//  7. no secret is in a log, in a state directory or in the shared ledger.
//
// The same run with the checks of holds left out must be found out: see TestSabotage.
package replicas
