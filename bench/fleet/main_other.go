//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "fleet: this measures by /proc, which only Linux has")
	os.Exit(1)
}
