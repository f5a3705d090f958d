# The least that rotatord needs, for secrets below access/ in a KV version 2 mount named
# secret. The end-to-end tests run under this very file, with no default policy beside it.

# Read what is stored, create it, write a new version. No delete, no list, no metadata.
path "secret/data/access/*" {
  capabilities = ["create", "read", "update"]
}

# For a KV version 1 mount use this instead:
# path "secret/access/*" {
#   capabilities = ["create", "read", "update"]
# }

# See whether the mount deletes versions by itself (delete_version_after), so that no rotation
# ends in a version that is gone before the next one. rotatord works without it, and then
# sees it only after a write.
path "secret/config" {
  capabilities = ["read"]
}

# The same for settings of single secrets. It costs one more request for each rotation.
# path "secret/metadata/access/*" {
#   capabilities = ["read"]
# }

# Ask whether rotatord may write: before each rotation in a mount of KV version 1, and in
# rotatord doctor. In version 2 the write itself is tried, with a check-and-set that cannot match.
path "sys/capabilities-self" {
  capabilities = ["update"]
}

# Keep the session alive. The policy "default" allows these two as well.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# Give a session back: rotatord doctor --login does so with the one that it took.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
