package event

// Repeating returns of how many tokens it is known what they have told, and how much of one of them at most.
func (s *Stream) Repeating() (tokens, most int) {
	for _, told := range s.repeats.told {
		most = max(most, len(told))
	}
	return len(s.repeats.told), most
}
