package httpapi

import (
	"maps"
	"slices"
)

// EssentialMetrics are the metrics that have a rule.
func EssentialMetrics() []string { return slices.Sorted(maps.Keys(essential)) }
