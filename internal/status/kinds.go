package status

// Kinds returns the names of all kinds of trouble that a token can be in, the worst first.
func Kinds() []string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return all
}

// ReplicaKinds returns the names of all kinds of trouble of replicas, the worst first.
func ReplicaKinds() []string { return replicaKinds }
