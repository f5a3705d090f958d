//go:build !linux

package main

// peekProcess is for Linux.
func peekProcess() {}
