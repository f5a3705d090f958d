//go:build race

package config

func init() { raceDetector = true }
