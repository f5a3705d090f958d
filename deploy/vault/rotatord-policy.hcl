# The least that rotatord needs, for secrets below access/ in a KV version 2 mount named
# secret. The end-to-end tests run under this very file, with no default policy beside it.

# Read what is stored, create it, write a new version. No delete, no list, no metadata.
path "secret/data/access/*" {
  capabilities = ["create", "read", "update"]
}

# For a KV version 1 mount use this in its place:
# path "secret/access/*" {
#   capabilities = ["create", "read", "update"]
# }

# Before each rotation rotatord asks whether it may write, so that no secret is asked for
# that could not be stored.
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
