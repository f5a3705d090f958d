// Package cfsim is a Cloudflare simulator: the service-token part of the API, the rate limit in front of
// it, and an application behind Access that checks the secrets.
//
// It is for rehearsing failures. A rotation tool is only as good as its behaviour when an answer is lost,
// cut, late or wrong, and the real Cloudflare does not do that on request. Every fault that
// [Simulator.Inject] takes is exact: it strikes as many requests as it says and no more.
// [Simulator.Stats], [Simulator.Tokens] and [Simulator.Secrets] show what really happened, so a test can
// compare what a client believes with the truth.
//
// The simulator keeps everything in memory, with [Open] also in a file, and its control paths need no
// credential. It is for rehearsals, and must not be exposed to a network. It never logs a secret. After
// the one answer that shows a secret it shows only digests, except to Go callers and in the state file,
// whose mode is 0600.
//
// It is deterministic: with a seed and an injected clock, the same requests get the same answers, byte by
// byte, even if it is restarted from its file in between.
//
// # Paths
//
//	/client/v4/   the API
//	/app/         an application behind Access that admits every valid service token
//	/app/{uuid}   the same, but only that service token is authorised there
//	/_sim/        control: stats, tokens, faults, behaviour; see docs/simulator.md
//
// # Documented behaviour
//
// This is what Cloudflare publishes, and the simulator follows it:
//   - the endpoints, their methods, bodies, answers and status codes, held by a test
//     against Cloudflare's own OpenAPI document; accounts and zones have tokens, only
//     accounts have rotate and refresh;
//   - the envelope: success, errors, messages, result; failures are 4XX with a null
//     result;
//   - authentication by bearer token, or by X-Auth-Email with X-Auth-Key;
//   - verify shows whether an API token is active, disabled or expired, its expires_on and
//     its not_before;
//   - a token that begins with cfut_ belongs to a user and one with cfat_ to an account,
//     and each has a verify of its own;
//   - a token that may read service tokens and not write them is refused with 9109;
//   - a client secret is shown in the answer to create or rotate and never again; its
//     shape is cfast_, 40 alphanumerics and an 8-character checksum;
//   - rotate keeps the previous secret until previous_client_secret_expires_at and
//     revokes it at once if that is absent; an update moves that time either way;
//   - an update with a higher client_secret_version rotates, and does not show the new
//     secret; with a duration it moves expires_at to now plus duration; refresh moves
//     it to one year from now;
//   - enabled: false stops the current and the previous secret until enabled again;
//   - delete is refused with code 12139 while a policy refers to the token;
//   - list takes name, search, page and per_page (1000 if absent, and at most), and
//     total_count counts without the search parameters;
//   - 1200 requests in five minutes for each credential; past it every request is
//     refused for five minutes with 429 and Retry-After; every answer carries
//     Ratelimit and Ratelimit-Policy;
//   - Access answers 401 to a token that cannot authenticate and 403 to a valid one
//     that is not authorised there; one that is told to read service tokens from another
//     header takes both halves from it as JSON.
//
// # Assumed behaviour
//
// The following is not published. A client must be right whichever way it is, so the
// ones marked (*) can be switched with [Behaviour]:
//   - only one previous secret is kept, and rotating again inside a grace period kills
//     it early (*);
//   - updated_at moves on create, update, rotate and refresh (*);
//   - a new secret works at once everywhere (*);
//   - verify answers 200 for an API token that is disabled, expired or not valid yet, and
//     401 with code 1000 for one that is unknown or revoked; every other call then gets
//     403 with 9109 (*: which of them the API token is);
//   - verify does not know a token of the other kind: 401 with code 1000; a token without
//     a prefix is known at both;
//   - of an application that reads a custom header, the two usual headers count where both
//     are there;
//   - the API's clock agrees with everybody else's (*);
//   - rotate does not move expires_at; no answer shows client_secret_version;
//   - every rotation raises the version by one or to the version asked for; a version
//     that is not higher than the present one is ignored;
//   - a previous secret that has expired or was revoked cannot be revived;
//   - the grace period has no upper limit;
//   - expires_at is absent for duration "forever", last_seen_at until first use, and
//     both from the answers to create and rotate;
//   - refreshing a token that lasts forever changes nothing;
//   - fields that are not known are ignored, a null field counts as absent;
//   - search is a case-insensitive search in the name; tokens are listed in the order
//     of their creation;
//   - a token belongs to the account or zone that it was made under, and is not found
//     under any other;
//   - a request that is refused because of a missing permission counts against the rate limit;
//   - the rate limit counts in fixed windows that begin with the first request;
//   - the codes and messages of errors other than 7003, 9109, 10000 and 12139, which
//     of those comes with 401 and which with 403, and all messages of Access itself;
//   - the checksum of a secret: here the CRC-32 of the 40 characters, in hex. It is this
//     package's own choice, and no client should check it.
package cfsim
