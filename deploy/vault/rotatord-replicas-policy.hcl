# What several replicas need beside rotatord-policy.hcl: their ledger, below rotatord/ in a KV version 2 mount named
# secret (state.shared.vault). The tests of replicas run under the two files together, as they are.
#
# Nobody else should have rights below this path: docs/replicas.md says what a reader and a writer could do.

# Records, pauses, signs of life, listings, and copies of sealed secrets. Each write is a check-and-set, so none replaces
# what another replica has written. No delete, undelete or destroy of a version.
path "secret/data/rotatord/*" {
  capabilities = ["create", "read", "update"]
}

# List what there is, and set how many versions Vault keeps.
path "secret/metadata/rotatord/*" {
  capabilities = ["create", "update", "list"]
}

# Remove what is of no use any more: the entry of a replica that is gone for a day, and the copy of a secret that was
# delivered. Not the records: a record that is removed is a rotation that is forgotten.
path "secret/metadata/rotatord/replicas/*" {
  capabilities = ["create", "update", "list", "delete"]
}
path "secret/metadata/rotatord/pending/*" {
  capabilities = ["create", "update", "list", "delete"]
}
