package event

// ReasonText returns what a reason code of package rotation means, in words. It returns a code that it
// does not know unchanged.
func ReasonText(code string) string {
	if words, ok := reasons[code]; ok {
		return words
	}
	return code
}

// reasons explain the reason codes of package rotation, which a test compares with this table.
var reasons = map[string]string{
	// Why a token is in doubt.
	"outcome_unknown":   "the request was sent, but no usable answer arrived",
	"answer_invalid":    "the answer was about another client, or without a usable secret",
	"unfamiliar_secret": "the secret in the answer has an unknown format",
	"odd_answer":        "the secret in the answer is good, but something else in the answer is odd",
	"interrupted":       "the daemon ended after the request was sent and before an answer was sealed",
	"sealed_lost":       "the sealed answer is gone from the disk, or cannot be decrypted",
	"sealed_elsewhere":  "the sealed answer is on the disk of another replica, which is away",

	// Why it is no longer, or still, in doubt.
	"updated_at_unchanged": "the rotation was not carried out",
	"old_secret_revoked":   "there is no old secret to protect",
	"grace_ending":         "half of the grace is left, or three graces are over",
	"old_secret_works":     "rotating again would cut the old secret off",
	"settling":             "the request may still be in progress",
	"spare":                "consumers do not use the service token that was rotated",
	"unfamiliar_kept":      "the secret that consumers use still works, and an operator must look at the new one",
	"made_and_lost":        "a service token was created, and its secret is lost",
	"made_and_sealed":      "a service token was created, and the sealed answer is about it",
	"not_made":             "no service token was created",
	"cannot_look":          "Cloudflare could not be asked whether a service token was created",
	"answer_returned":      "the answer was found: its replica came back, or there is a copy",
	"operator_rotate_now":  "an operator decided to rotate again",
	"operator_not_rotated": "an operator decided that the rotation was not carried out",
	"operator_deliver":     "an operator decided to deliver the sealed answer",

	// Why a sealed secret is not delivered, or how that ended.
	"undelivered":   "the new secret is not in every sink yet, and is tried again now",
	"overtaken":     "another rotation replaced the new secret, and a sink has the other one: ours stays sealed",
	"ours_works":    "the application refuses the secret in the sinks, and accepts ours",
	"theirs_works":  "the application accepts the secret in the sinks",
	"leak_order":    "an order to revoke the previous secret overrides it",
	"heals":         "outside_rotation rotates the token again",
	"operator_drop": "an operator gave up the new secret",

	// Why a secret that was delivered is not taken as good, or is after all.
	"unverified":      "the new secret is in every sink, but the application refuses it",
	"operator_accept": "an operator decided that the new secret is good",

	// What an operator's look at the sinks of an idle token has shown, and what was decided.
	"sinks_differ":          "a sink does not hold what was written to it",
	"sinks_as_written":      "every sink holds what was written to it",
	"operator_accept_sinks": "an operator decided that what the sinks hold is right",
}

// Reasons returns all reason codes that have words.
func Reasons() []string {
	all := make([]string, 0, len(reasons))
	for code := range reasons {
		all = append(all, code)
	}
	return all
}
