package main

import (
	"strings"
	"testing"

	"rotatord/internal/webpage/webpagetest"
)

// TestSampleCommands: the commands in the pictures of the status page can be typed.
func TestSampleCommands(t *testing.T) {
	checked := 0
	for _, token := range webpagetest.Trouble(webpagetest.Fleet(12)).All {
		for _, todo := range token.ToDo {
			words := strings.Fields(todo.Command)
			if len(words) == 0 || words[0] != "rotatord" {
				continue
			}
			checked++
			cmd, rest, err := newRoot().Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err != nil {
				t.Errorf("%s: %v", todo.Command, err)
			}
		}
	}
	if checked < 4 {
		t.Errorf("only %d commands were found", checked)
	}
}
