// Package leader kills the leader of a real Vault cluster at every step of a delivery, and compares what is left with
// the truth.
//
// Three cores on Raft storage are one cluster. The daemon is the real binary. It reaches the cluster through a load
// balancer of the test, as it does a Kubernetes Service or a virtual address in production; vault.nodes names the members,
// for a standby that redirects. The balancer sees each request, so the test knows the step: the leader is struck when a
// login, a renewal, a read, the proof of a write, the write or the read-back arrives, while Vault works on the write, or
// when Vault has answered and the daemon has not got the answer. It is killed, paused (a machine that hangs and comes back
// as a leader that is not one any more), stopped in order, or steps down. Some balancers send every request to the member
// that led at the start.
//
// In each round one token is due, and when it was rotated it is rotated again, by an order. Then an oracle checks that
//
//  1. each secret that Cloudflare issued is one version in Vault and no more, in the order in which they were issued, and
//     nothing else was written;
//  2. exactly two secrets were issued, and no rotation was in doubt;
//  3. every look at what Vault held, at any time of the round, found a secret that the application accepts;
//  4. nothing is pending, the record is idle, and what another program keeps beside the credential is there;
//  5. no secret is in the log.
//
// A daemon whose read-back is left out, and a balancer that repeats writes, must be found out.
package leader
