//go:build !race

// Package racedetector says to tests whether the race detector is at work. With it, everything takes ten times as long and
// allocates more. A test that has one goroutine, or that counts allocations, does less then, or nothing. `make test` runs it in
// full without the race detector: a test of docs/ holds the Makefile to that.
package racedetector

// On is true if the race detector is at work.
const On = false
