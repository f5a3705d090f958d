//go:build race

package racedetector

// On is true if the race detector is at work.
const On = true
