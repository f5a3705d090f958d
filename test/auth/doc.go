// Package auth runs the real daemon with each way to log in to Vault, against real parts: Vault's core with its plugins and
// a TLS listener, and a Kubernetes API server that reviews and signs the tokens of service accounts.
//
// For each method it logs in with a role that is not there, logs in, sees its session end and takes another one, renews,
// loses its session to an administrator, gets a credential that is refused and then a good one, and is started while Vault
// is away and a slot is due. Rotations must go on, or resume by themselves; a table says after how long. What the daemon
// says when it is refused must name the reason.
//
// Vault Agent does not compile as a library. What is in its place here is a proxy of the test that does what the agent
// does with a request: it asks for the header X-Vault-Request, and adds its own token.
package auth
