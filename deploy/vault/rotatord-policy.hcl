# The least that rotatord needs, for secrets below access/ in a KV version 2 mount named secret. It is the
# same for every way to log in. The end-to-end tests run under this very file, without the policy default.
#
# Other paths: change the first stanza, or write one for each path. Nothing else has to be changed.

# Read what is stored, create it, write a new version. No delete, no list, no undelete, no destroy.
path "secret/data/access/*" {
  capabilities = ["create", "read", "update"]
}

# The session: see when it ends, make it last longer, and give it back. rotatord gives back each session
# that it has replaced, and doctor --login the one that it took. The policy default allows these three
# as well, but the roles in README.md leave it out.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Ask what rotatord may do: whether it may write, in a mount of KV version 1 (in version 2 the write itself
# is tried, with a check-and-set that cannot match); whether it may note metadata; and in rotatord doctor,
# whether it may do more than it has to.
path "sys/capabilities-self" {
  capabilities = ["update"]
}

# See whether the mount deletes versions by itself (delete_version_after), so that no rotation ends in a
# version that is gone before the next one. rotatord works without it, and then sees it only after a write.
path "secret/config" {
  capabilities = ["read"]
}

# OPTIONAL: the same for settings of single secrets. It costs one more request for each rotation.
# path "secret/metadata/access/*" {
#   capabilities = ["read"]
# }

# OPTIONAL, for metadata: true at a sink: write down for people when a secret was rotated, and until when
# the previous one works. A path can have one stanza only: with the one above, write ["read", "patch"].
# path "secret/metadata/access/*" {
#   capabilities = ["patch"]
# }

# OPTIONAL, for rotatord doctor: look whether the role of the login is bound to this daemon. It may stay.
# With TLS certificates the path is auth/cert/certs/rotatord.
# path "auth/+/role/rotatord" {
#   capabilities = ["read"]
# }

# OPTIONAL, for a mount of KV version 1, in place of the stanza for secret/data/access/*:
# path "secret/access/*" {
#   capabilities = ["create", "read", "update"]
# }

# OPTIONAL, for several replicas (state.shared): rotatord-replicas-policy.hcl beside this file, as a second policy.
