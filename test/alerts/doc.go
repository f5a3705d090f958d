// Package alerts measures what an operator is told, and when. It runs a real Prometheus with
// the shipped rules, and for each failure a daemon of its own with its own simulator of
// Cloudflare and, where the failure concerns it, its own Vault. Once all is well it provokes
// every failure at the same time, while no rotation is due for days. It notes how long it takes
// until the first alert fires, its severity, and what `rotatord status` shows at that moment.
//
// `make alerts` runs it; its flags take a binary and rules other than those of the tree.
package alerts
