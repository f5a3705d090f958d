// Package alerts measures what an operator is told, and when. It runs a real Prometheus with
// the shipped rules, and for each failure a daemon of its own with its own simulator of
// Cloudflare and, where the failure concerns it, its own Vault. Once all is well it provokes
// every failure at the same time, while no rotation is due for days. It notes how long it takes
// until the first alert fires, its severity, and what `rotatord status` shows at that moment.
//
// `make alerts` runs it; its flags take a binary and rules other than those of the tree.
//
// `make alerts-e2e` is about every alert, with rules whose times are short, and with an Alertmanager: each alert must fire
// once, and clear. docs/alerts.md has what is real there, and a table of one run. A place is one daemon, or two replicas, with their
// failures: slow ones in faults_test.go, those of single tokens in tokens_test.go, those of replicas in replicas_test.go. A
// failure of a new kind is added there.
package alerts
