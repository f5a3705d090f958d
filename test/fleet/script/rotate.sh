#!/usr/bin/env bash
# The script that rotatord is compared with: one rotation of one service token, as it is
# written by a careful person and run from cron.
#
#   rotate.sh SERVICE_TOKEN_ID VAULT_PATH GRACE_SECONDS
#
# CF_API, CF_API_TOKEN, CF_ACCOUNT_ID, VAULT_ADDR and VAULT_TOKEN say where and by what
# right. With RETRIES=3 each request is repeated up to three times.
#
# The last step is `vault kv put secret/PATH client_id=... client_secret=...`. It is written
# as the request that the command makes, so that the test needs no Vault client.
set -euo pipefail

token_id=$1 path=$2 grace=$3

request=(curl --silent --show-error --fail --max-time 20)
if [[ -n ${RETRIES:-} ]]; then
	request+=(--retry "$RETRIES" --retry-all-errors)
fi

expires=$(date -u -d "+$grace seconds" +%Y-%m-%dT%H:%M:%SZ)
answer=$("${request[@]}" -X POST \
	-H "Authorization: Bearer $CF_API_TOKEN" -H 'Content-Type: application/json' \
	--data "{\"previous_client_secret_expires_at\": \"$expires\"}" \
	"$CF_API/accounts/$CF_ACCOUNT_ID/access/service_tokens/$token_id/rotate")

field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" <<<"$answer"; }
client_id=$(field client_id)
client_secret=$(field client_secret)
if [[ -z $client_id || -z $client_secret ]]; then
	echo "rotate.sh: the answer for $token_id has no credential" >&2
	exit 1
fi

"${request[@]}" --output /dev/null -X PUT \
	-H "X-Vault-Token: $VAULT_TOKEN" -H 'X-Vault-Request: true' --data @- \
	"$VAULT_ADDR/v1/secret/data/$path" <<<"{\"data\": {\"client_id\": \"$client_id\", \"client_secret\": \"$client_secret\"}, \"options\": {}}"
