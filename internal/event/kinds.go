package event

import (
	"log/slog"
	"slices"
)

// Definition is what is the same for all events of a kind.
type Definition struct {
	Kind     Kind
	Of       Detail // empty: its type is that of the events' details
	Severity Severity
	// Message is what happened, in words. NAME stands for the token. Alerts, scripts and the runbook
	// read some of them in the log.
	Message string
	// When says when it happens, for docs/events.md.
	When string
	// Level is the level in the log; nil for the one that follows from the severity.
	Level slog.Leveler
	// Unrecorded leaves it out of the record of events (package audit): it says nothing that another event does not say.
	Unrecorded bool
}

// Of rotations.
const (
	Rotated             Kind = "rotation.succeeded"
	RotationFailed      Kind = "rotation.failed"
	RotationSkipped     Kind = "rotation.skipped"
	SkippedAsBefore     Kind = "rotation.skipped_as_before"
	RotationInDoubt     Kind = "rotation.in_doubt"
	RotationUndelivered Kind = "rotation.undelivered"
	RotationNotEnded    Kind = "rotation.not_ended"
	RotationOvertaken   Kind = "rotation.overtaken"
	ReissueProtected    Kind = "reissue.old_secret_extended"
	ReissueUnprotected  Kind = "reissue.old_secret_not_extended"
	ReissueCutOff       Kind = "reissue.consumers_cut_off"
	Stuck               Kind = "rotation.stuck"
	StuckAsBefore       Kind = "rotation.stuck_as_before"
	StepEnded           Kind = "rotation.step_ended"
	SinkWritten         Kind = "sink.written"
	SinkFailed          Kind = "sink.write_failed"
	VersionDeletes      Kind = "sink.version_deletes"
	SealFailed          Kind = "secret.not_sealed"
	SecretAccepted      Kind = "secret.accepted"
	SecretRefused       Kind = "secret.refused"
	SecretUntried       Kind = "secret.not_tried"
	OvertakenEnded      Kind = "secret.overtaken_resolved"
	DoubtJudged         Kind = "doubt.judged"
	DoubtUnchanged      Kind = "doubt.unchanged"
	DoubtResolved       Kind = "doubt.resolved"

	GraceExtended        Kind = "grace.extended"
	GraceExtensionFailed Kind = "grace.extension_failed"
	SlotsMissed          Kind = "slots.missed"
	ClockHealed          Kind = "ledger.times_removed"
)

// Of the watch of sinks and of the secret in use.
const (
	SinkChanged        Kind = "sink.changed"
	SinkRolledBack     Kind = "sink.rolled_back"
	SinkDeleted        Kind = "sink.deleted"
	SinkWithoutSecret  Kind = "sink.without_secret"
	SinkNeverWritten   Kind = "sink.never_written"
	SinkUnreadable     Kind = "sink.unreadable"
	SinkAsWritten      Kind = "sink.as_written"
	SinkRestored       Kind = "sink.restored"
	SinkRestoreOrdered Kind = "sink.restore_ordered"
	SinkNotRestored    Kind = "sink.not_restored"
	InUseRefused       Kind = "secret.in_use_refused"
	InUseAccepted      Kind = "secret.in_use_accepted"
)

// Of hooks, which run after a rotation.
const (
	HookSucceeded Kind = "hook.succeeded"
	HookFailed    Kind = "hook.failed"
	HookDropped   Kind = "hook.dropped"
)

// Of service tokens.
const (
	Adopted            Kind = "token.adopted"
	Renewed            Kind = "token.renewed"
	RenewalFailed      Kind = "token.renewal_failed"
	ReplacedDeleted    Kind = "token.replaced_deleted"
	ReplacedNotDeleted Kind = "token.replaced_not_deleted"
	RotatedOutside     Kind = "token.rotated_outside"
	ChangedOutside     Kind = "token.changed_outside"
	TokenGone          Kind = "token.gone"
	TokenDisabled      Kind = "token.disabled"
	TokenUnreadable    Kind = "token.unreadable"
	TokenNotFound      Kind = "token.not_found"
)

// Operators' commands at the admin socket.
const (
	OperatorRotate         Kind = operatorPrefix + "rotate"
	OperatorRotateAll      Kind = operatorPrefix + "rotate_all"
	OperatorCancel         Kind = operatorPrefix + "cancel"
	OperatorCancelAll      Kind = operatorPrefix + "cancel_all"
	OperatorPause          Kind = operatorPrefix + "pause"
	OperatorResume         Kind = operatorPrefix + "resume"
	OperatorResolve        Kind = operatorPrefix + "resolve"
	OperatorRevokePrevious Kind = operatorPrefix + "revoke_previous"
	OperatorExtendGrace    Kind = operatorPrefix + "extend_grace"
	OperatorNotifyTest     Kind = operatorPrefix + "notify_test"
	OperatorRead           Kind = operatorPrefix + "status"
	OperatorHook           Kind = operatorPrefix + "hook"
)

// The life of the daemon.
const (
	Started        Kind = "daemon.started"
	Stopping       Kind = "daemon.stopping"
	Stopped        Kind = "daemon.stopped"
	Failed         Kind = "daemon.failed"
	Interrupted    Kind = "daemon.rotations_interrupted"
	SecretsLost    Kind = "daemon.secrets_lost"
	Reloaded       Kind = "reload.succeeded"
	ReloadFailed   Kind = "reload.refused"
	EnrollFailed   Kind = "reload.token_not_scheduled"
	Unfinished     Kind = "start.rotation_unfinished"
	DoubtFound     Kind = "start.in_doubt"
	OvertakenFound Kind = "start.overtaken"
	Forgotten      Kind = "start.token_not_configured"
)

// Of several replicas that share a ledger.
const (
	TakenOver        Kind = "replica.claim_taken_over"
	Copied           Kind = "secret.copied"
	NotCopied        Kind = "secret.not_copied"
	LateDelivered    Kind = "secret.late_delivered"
	LateSuperseded   Kind = "secret.late_superseded"
	ReplicaLives     Kind = "replica.lives"
	ReplicaDied      Kind = "replica.died"
	ReplicaLeft      Kind = "replica.left"
	VaultClockJumped Kind = "replica.vault_clock_jumped"
	StandsAside      Kind = "replica.stands_aside"
	WorksAgain       Kind = "replica.works_again"
	LedgerUnread     Kind = "replica.ledger_unread"
	LedgerRead       Kind = "replica.ledger_read"
)

// What the daemon needs around it.
const (
	CheckFailing           Kind = "check.failing"
	CheckWarning           Kind = "check.warning"
	CheckRecovered         Kind = "check.recovered"
	CredentialUnreadable   Kind = "credential.unreadable"
	CredentialReadable     Kind = "credential.readable"
	ClockSet               Kind = "clock.set"
	ListingFailed          Kind = "inventory.failed"
	ListingOdd             Kind = "inventory.odd"
	LimitReached           Kind = "limit.reached"
	LimitOver              Kind = "limit.over"
	VaultLoggedIn          Kind = "vault.logged_in"
	VaultLoginFailed       Kind = "vault.login_failed"
	VaultCredentialRefused Kind = "vault.credential_refused"
	VaultSessionEnded      Kind = "vault.session_ended"
	VaultRenewalRefused    Kind = "vault.renewal_refused"
	VaultRenewalFailed     Kind = "vault.renewal_failed"
	VaultMetadataRefused   Kind = "vault.metadata_refused"
	VaultRevocationFailed  Kind = "vault.revocation_failed"
	VaultTLSReloaded       Kind = "vault.tls_reloaded"
	VaultTLSKept           Kind = "vault.tls_kept"
	VaultUnwrapped         Kind = "vault.unwrapped"
	VaultUnwrapFailed      Kind = "vault.unwrap_failed"
	VaultSecretIDUnsaved   Kind = "vault.secret_id_not_kept"
	WebConfigUnreadable    Kind = "web_config.unreadable"
	WebConfigReadable      Kind = "web_config.readable"
)

// Of notifications.
const (
	NotificationDelivered Kind = "notification.delivered"
	NotificationFailed    Kind = "notification.failed"
	NotificationGivenUp   Kind = "notification.given_up"
)

// Of the record of events, and of requests that it must have before they leave.
const (
	RequestLeaves  Kind = "request.leaves"
	AuditBegan     Kind = "audit.began"
	AuditDamaged   Kind = "audit.damaged"
	AuditContinued Kind = "audit.continued"
	AuditRepaired  Kind = "audit.torn_line_removed"
	AuditChanged   Kind = "audit.changed_outside"
	AuditLost      Kind = "audit.events_lost"
	AuditHead      Kind = "audit.head"
)

// Groups of kinds, for subscribers that ignore a whole group. Kinds of rotations and of service tokens are in
// none: each is named. Watch is what is found, and done, between rotations.
var (
	Watch = []Kind{SinkChanged, SinkRolledBack, SinkDeleted, SinkWithoutSecret, SinkNeverWritten, SinkUnreadable, SinkAsWritten, SinkRestored,
		SinkRestoreOrdered, SinkNotRestored, InUseRefused, InUseAccepted}
	Commands = []Kind{OperatorRotate, OperatorRotateAll, OperatorCancel, OperatorCancelAll, OperatorPause, OperatorResume, OperatorResolve,
		OperatorRevokePrevious, OperatorExtendGrace, OperatorNotifyTest, OperatorRead, OperatorHook}
	// Record is what the record of events tells of itself, and the event that is only there.
	Record     = []Kind{RequestLeaves, AuditBegan, AuditDamaged, AuditContinued, AuditRepaired, AuditChanged, AuditLost, AuditHead}
	Hooks      = []Kind{HookSucceeded, HookFailed, HookDropped}
	DaemonLife = []Kind{Started, Stopping, Stopped, Failed, Interrupted, SecretsLost, Reloaded, ReloadFailed, EnrollFailed, Unfinished, DoubtFound,
		OvertakenFound, Forgotten}
	Replicas = []Kind{TakenOver, Copied, NotCopied, LateDelivered, LateSuperseded, ReplicaLives, ReplicaDied, ReplicaLeft, VaultClockJumped, StandsAside,
		WorksAgain, LedgerUnread, LedgerRead}
	Surroundings = []Kind{CheckFailing, CheckWarning, CheckRecovered, CredentialUnreadable, CredentialReadable, ClockSet, ListingFailed, ListingOdd,
		LimitReached, LimitOver, VaultLoggedIn, VaultLoginFailed, VaultCredentialRefused, VaultSessionEnded, VaultRenewalRefused, VaultRenewalFailed, VaultMetadataRefused,
		VaultRevocationFailed, VaultTLSReloaded, VaultTLSKept, VaultUnwrapped, VaultUnwrapFailed, VaultSecretIDUnsaved,
		WebConfigUnreadable, WebConfigReadable, NotificationDelivered, NotificationFailed, NotificationGivenUp}
)

// definitions has one row for each kind. No other place words an event.
var definitions = []Definition{
	{Kind: Rotated, Of: RotationEnded{}, Severity: Info, Message: "rotated",
		When: "a rotation is done: every sink has confirmed the new secret"},
	{Kind: RotationFailed, Of: RotationEnded{}, Severity: Warning, Message: "rotation failed: Cloudflare did not carry it out",
		When: "a rotate request was sent, and Cloudflare refused it"},
	{Kind: RotationSkipped, Of: RotationEnded{}, Severity: Warning, Message: "rotation skipped: nothing was sent to Cloudflare",
		When: "preflight found that the secret could not be stored, or that the request could not be sent; for the same cause once an hour for each token"},
	{Kind: SkippedAsBefore, Of: RotationEnded{}, Unrecorded: true, Severity: Info, Level: slog.LevelDebug, Message: "rotation skipped as before: nothing was sent to Cloudflare",
		When: "the same cause as in an attempt that was told less than an hour ago"},
	{Kind: RotationInDoubt, Of: RotationEnded{}, Severity: Critical, Message: "nobody knows whether the secret was rotated: the token is in doubt, and the old secret is left alone",
		When: "a rotate request was sent, and no usable answer came"},
	{Kind: RotationUndelivered, Of: RotationEnded{}, Severity: Warning, Level: slog.LevelError, Message: "a new secret waits to be delivered",
		When: "the new secret is sealed, and a later step failed; it is tried again"},
	{Kind: RotationNotEnded, Of: RotationEnded{}, Severity: Critical, Message: "a new secret is in every sink, and its rotation cannot end yet",
		When: "the new secret is refused where it is tried, or the ledger cannot be written; it is tried again"},
	{Kind: RotationOvertaken, Of: RotationEnded{}, Severity: Critical, Message: "a new secret was overtaken and is not delivered: another one is in the sinks, and an operator has to decide: rotatord status NAME",
		When: "a sink holds a secret that is later than the new one"},
	{Kind: ReissueProtected, Of: RotationEnded{}, Severity: Critical, Message: "a lost secret could not be made up for yet: the grace of the old secret is extended",
		When: "a reissue failed, and the daemon extends the grace of the old secret"},
	{Kind: ReissueUnprotected, Of: RotationEnded{}, Severity: Critical, Message: "a lost secret could not be made up for yet: consumers have the old secret, which is not extended",
		When: "a reissue failed, and the grace of the old secret ends without one"},
	{Kind: ReissueCutOff, Of: RotationEnded{}, Severity: Critical, Message: "a lost secret could not be made up for yet: consumers have no secret that works",
		When: "a reissue failed, and the old secret is dead"},
	{Kind: Stuck, Of: RotationStuck{}, Severity: Warning, Message: "the token could not be worked on",
		When: "the ledger could not be read or written, or the token stays in doubt; for the same cause once an hour for each token"},
	{Kind: StuckAsBefore, Of: RotationStuck{}, Unrecorded: true, Severity: Info, Level: slog.LevelDebug, Message: "the token could not be worked on, as before",
		When: "the same cause as in an event that was told less than an hour ago"},
	{Kind: StepEnded, Of: PhaseEnded{}, Unrecorded: true, Severity: Info, Level: slog.LevelDebug, Message: "step ended",
		When: "a step of a rotation ended, well or not"},
	{Kind: SinkWritten, Of: SinkWrite{}, Severity: Info, Message: "a secret was written to a sink",
		When: "a sink has confirmed the new secret by read-back"},
	{Kind: SinkFailed, Of: SinkWrite{}, Severity: Warning, Message: "a secret could not be written to a sink",
		When: "a delivery to a sink failed; it is tried again"},
	{Kind: VersionDeletes, Of: VersionDeletion{}, Severity: Warning, Level: slog.LevelError, Message: "the sink will delete the new version by itself before the next rotation: consumers will find nothing then. Switch delete_version_after off",
		When: "a version was stored that Vault deletes before the next rotation"},
	{Kind: SealFailed, Of: SealFailure{}, Severity: Critical, Message: "a new secret could not be sealed on disk and is held in memory alone: do not stop the daemon, free the disk",
		When: "the disk refused the sealed answer"},
	{Kind: SecretAccepted, Of: Probe{}, Severity: Info, Message: "the new secret is accepted where it was tried",
		When: "`verify` got an answer that proves that the new secret works"},
	{Kind: SecretRefused, Of: Probe{}, Severity: Critical, Message: "the new secret is refused where it was tried: the grace of the old one is extended, and nothing is rotated until the new one is accepted or an operator decides",
		When: "`verify` was refused for longer than `verify.within`"},
	{Kind: SecretUntried, Of: Probe{}, Severity: Warning, Message: "the new secret could not be tried, and nothing speaks against it",
		When: "`verify` proved nothing within `verify.within`"},
	{Kind: OvertakenEnded, Of: OvertakenEnd{}, Severity: Warning, Message: "a sealed secret that was overtaken, or whose service token is gone, is delivered after all or given up",
		When: "a sealed secret that was not delivered is delivered after all, or given up"},
	{Kind: DoubtJudged, Of: Verdict{}, Severity: Warning, Message: "doubt judged",
		When: "a look at a token in doubt led to another verdict than the look before it"},
	{Kind: DoubtUnchanged, Of: Verdict{}, Unrecorded: true, Severity: Info, Message: "doubt judged as before",
		When: "a look at a token in doubt led to the same verdict again"},
	{Kind: DoubtResolved, Of: Resolution{}, Severity: Warning, Message: "doubt resolved",
		When: "a token is no longer in doubt"},
	{Kind: GraceExtended, Of: GraceExtension{}, Severity: Warning, Message: "the old secret's grace was extended, since consumers have nothing else yet",
		When: "the old secret works for longer, because its replacement is owed or not delivered"},
	{Kind: GraceExtensionFailed, Of: GraceExtension{}, Severity: Critical, Message: "the old secret's grace could not be extended, and consumers have nothing else yet",
		When: "Cloudflare did not extend the grace; it is tried again"},
	{Kind: SlotsMissed, Of: Missed{}, Severity: Warning, Message: "slots passed without a rotation of their own",
		When: "slots are consumed by one rotation that catches up, or given up"},
	{Kind: ClockHealed, Of: Healed{}, Severity: Warning, Message: "the ledger had times that only a clock which was ahead can have written: they were removed",
		When: "a record has times in the future that no slot explains"},

	{Kind: SinkChanged, Of: SinkFinding{}, Severity: Critical, Message: "a sink holds another secret than the one that was written to it: rotatord status NAME",
		When: "two looks at a sink showed a secret that rotatord never wrote there"},
	{Kind: SinkRolledBack, Of: SinkFinding{}, Severity: Critical, Message: "a sink holds an earlier secret again: it was rolled back: rotatord status NAME",
		When: "two looks at a sink showed a secret from before the last write"},
	{Kind: SinkDeleted, Of: SinkFinding{}, Severity: Critical, Message: "a sink does not hold the secret any more, and consumers find nothing there: rotatord status NAME",
		When: "two looks at a sink showed that its content was deleted, destroyed or removed"},
	{Kind: SinkWithoutSecret, Of: SinkFinding{}, Severity: Critical, Message: "a sink has no client secret in its field any more: rotatord status NAME",
		When: "two looks at a sink showed that the field is missing or is not a text"},
	{Kind: SinkNeverWritten, Of: SinkFinding{}, Severity: Warning, Message: "a sink was never written, since it was added after the last rotation: rotatord rotate NAME",
		When: "two looks at a new sink showed that it does not hold the secret"},
	{Kind: SinkUnreadable, Of: SinkFinding{}, Severity: Warning, Message: "a sink could not be read several times in a row, so it is not known what consumers find there",
		When: "looks at a sink failed for minutes, and no look-ahead check says why"},
	{Kind: SinkAsWritten, Of: SinkFinding{}, Severity: Info, Message: "a sink holds what was written to it again",
		When: "two looks at a sink showed that a finding is over"},
	{Kind: SinkRestored, Of: SinkRestore{}, Severity: Warning, Message: "the secret was written back to a sink that did not hold it any more",
		When: "`outside_change: restore`: the sink has confirmed the secret by read-back"},
	{Kind: SinkRestoreOrdered, Of: SinkRestore{}, Severity: Warning, Message: "no copy of the secret is left that could be written back to a sink: a rotation is ordered, and rotatord status NAME says what it waits for",
		When: "`outside_change: restore`: a rotation was ordered; a pause, a freeze or a promised grace delays it"},
	{Kind: SinkNotRestored, Of: SinkRestore{}, Severity: Critical, Message: "the secret is not written back to a sink that does not hold it any more: rotatord status NAME",
		When: "`outside_change: restore`, and something speaks against it, or the write failed"},
	{Kind: InUseRefused, Of: InUseProbe{}, Severity: Critical, Message: "the secret in use is refused where it is tried: rotatord status NAME",
		When: "`verify.every`: several requests in a row were refused"},
	{Kind: InUseAccepted, Of: InUseProbe{}, Severity: Info, Message: "the secret in use is accepted again where it is tried",
		When: "`verify.every`: a request was accepted after refusals"},

	{Kind: HookSucceeded, Of: HookEnded{}, Severity: Info, Message: "a hook has run after the rotation",
		When: "a hook of `after` has succeeded"},
	{Kind: HookFailed, Of: HookEnded{}, Severity: Warning, Message: "a hook failed after the rotation: consumers may not know of the new secret yet",
		When: "a hook of `after` has failed; it is tried again"},
	{Kind: HookDropped, Of: HookDrop{}, Severity: Warning, Message: "a hook that was owed is given up",
		When: "an operator gave it up, or the configuration does not have it any more"},
	{Kind: Adopted, Of: Adoption{}, Severity: Warning, Message: "a service token with the name that was to be created exists, and was adopted",
		When: "`create.adopt` is set, and the account has a service token of that name"},
	{Kind: Renewed, Of: Renewal{}, Severity: Info, Message: "the service token was renewed",
		When: "the service token's own end was moved, as `renew_before` asks"},
	{Kind: RenewalFailed, Of: Renewal{}, Severity: Warning, Level: slog.LevelError, Message: "the service token could not be renewed",
		When: "Cloudflare did not renew the service token; it is tried again"},
	{Kind: ReplacedDeleted, Of: Deletion{}, Severity: Info, Message: "a service token that was replaced was deleted",
		When: "`strategy: replace`: the grace of a replaced service token is over"},
	{Kind: ReplacedNotDeleted, Of: Deletion{}, Severity: Warning, Level: slog.LevelError, Message: "a service token that was replaced could not be deleted",
		When: "most often a policy still names it; it is tried again"},
	{Kind: RotatedOutside, Of: OutsideRotation{}, Severity: Critical, Message: "another person or program rotated the service token: the secret in the sinks is dead, or will be when the grace of that rotation ends",
		When: "an inventory showed a rotation that was not our own"},
	{Kind: ChangedOutside, Of: OutsideChange{}, Severity: Warning, Message: "another person or program changed the service token",
		When: "an inventory showed a change that was not our own"},
	{Kind: TokenGone, Of: Seen{}, Severity: Critical, Message: "the account has no service token with this id any more, or never had: its secret works nowhere, and its rotations fail until the configuration is corrected",
		When: "an inventory did not show the service token, and Cloudflare does not know it"},
	{Kind: TokenDisabled, Of: Seen{}, Severity: Critical, Level: slog.LevelWarn, Message: "the service token is disabled at Cloudflare, which refuses its secrets",
		When: "an inventory showed it, at each inventory"},
	{Kind: TokenUnreadable, Of: Seen{}, Severity: Warning, Message: "the service token is there, but its entry in the account's listing cannot be read: when it expires, and whether it is enabled, is not watched",
		When: "an inventory showed an entry that is not as documented"},
	{Kind: TokenNotFound, Of: Seen{}, Severity: Warning, Message: "the account's listing does not have the service token, and it could not be asked for",
		When: "an inventory did not show the service token, and Cloudflare gave no answer about it"},

	command(OperatorRotate, "`rotatord rotate NAME`"),
	command(OperatorRotateAll, "`rotatord rotate --all`"),
	command(OperatorCancel, "`rotatord rotate NAME --cancel`"),
	command(OperatorCancelAll, "`rotatord rotate --all --cancel`"),
	command(OperatorPause, "`rotatord pause`"),
	command(OperatorResume, "`rotatord resume`"),
	command(OperatorResolve, "`rotatord resolve NAME`"),
	command(OperatorRevokePrevious, "`rotatord revoke-previous NAME`"),
	command(OperatorExtendGrace, "`rotatord extend-grace NAME`"),
	command(OperatorNotifyTest, "`rotatord notify test`"),
	{Kind: OperatorRead, Of: Command{}, Severity: Info, Message: "admin command",
		When: "`rotatord status`, `history` or another command that only reads was refused, because of `admin.allow`; once a minute for each user"},
	command(OperatorHook, "`rotatord hook run` or `hook drop`"),

	{Kind: Started, Of: DaemonStart{}, Severity: Info, Message: "rotatord is running",
		When: "the daemon serves and schedules"},
	{Kind: Stopping, Of: DaemonStop{}, Severity: Info, Message: "stopping: rotations in progress are finished first",
		When: "a signal asks the daemon to stop"},
	{Kind: Stopped, Of: DaemonEnd{}, Severity: Info, Message: "stopped",
		When: "the daemon has stopped; it is the last event of a process"},
	{Kind: Failed, Of: DaemonFailure{}, Severity: Critical, Message: "stopping: the daemon cannot go on",
		When: "a listener failed"},
	{Kind: Interrupted, Of: Interruption{}, Severity: Warning, Message: "rotations were still in progress at the shutdown timeout; they are continued at the next start",
		When: "the shutdown timeout ended before the rotations did"},
	{Kind: SecretsLost, Of: Loss{}, Severity: Critical, Message: "secrets that the disk refused are lost with this process, unless their sinks have confirmed them",
		When: "the daemon stops with a secret that it could not seal"},
	{Kind: Reloaded, Of: Reload{}, Severity: Info, Message: "the configuration was reloaded",
		When: "SIGHUP: the new configuration is in force"},
	{Kind: ReloadFailed, Of: ReloadRefusal{}, Severity: Warning, Level: slog.LevelError, Message: "the configuration is not reloaded: the one in force stays",
		When: "SIGHUP: the new configuration has faults, or asks for a restart"},
	{Kind: EnrollFailed, Of: NotEnrolled{}, Severity: Warning, Level: slog.LevelError, Message: "a token that was reloaded is not scheduled yet: its record could not be written",
		When: "the ledger refused the record of a token that a reload brought or changed"},
	{Kind: Unfinished, Of: Leftover{}, Severity: Info, Message: "a rotation was left unfinished; it is continued first",
		When: "at start, for each such token"},
	{Kind: DoubtFound, Of: OldDoubt{}, Severity: Critical, Message: "the token is in doubt, and has been since before this start",
		When: "at start, for each such token"},
	{Kind: OvertakenFound, Of: OldOvertaken{}, Severity: Critical, Message: "the new secret of the token was overtaken, and has been since before this start: an operator has to decide: rotatord status NAME",
		When: "at start, for each such token"},
	{Kind: Forgotten, Of: Orphan{}, Severity: Critical, Message: "a rotation is unfinished and its token is no longer configured: put it back into the configuration until the rotation is done. If that cannot be, stop the daemon and give its sealed secret up: rotatord recover --drop ROTATION --unfinished",
		When: "at start and at a reload, for each such token"},
	{Kind: CheckFailing, Of: CheckResult{}, Severity: Warning, Level: slog.LevelError, Message: "the next rotation could not begin: something that it needs is missing",
		When: "a look-ahead check began to fail, or fails for another reason"},
	{Kind: CheckWarning, Of: CheckResult{}, Severity: Warning, Message: "something that rotations need is about to be missing",
		When: "a look-ahead check that does not stop rotations began to fail"},
	{Kind: CheckRecovered, Of: CheckResult{}, Severity: Info, Message: "what rotations need is there again",
		When: "a look-ahead check is good again"},
	{Kind: CredentialUnreadable, Of: CheckResult{}, Severity: Warning, Level: slog.LevelError, Message: "the account's credential cannot be read: none of its tokens can be rotated until it can",
		When: "a look-ahead check could not read the file of a credential"},
	{Kind: CredentialReadable, Of: CheckResult{}, Severity: Info, Message: "the account's credential can be read again",
		When: "a look-ahead check could read it again"},
	{Kind: ClockSet, Of: ClockStep{}, Severity: Warning, Message: "the wall clock was set, or the machine slept: all tokens are planned again",
		When: "the wall clock moved by a minute or more against the monotonic one"},
	{Kind: ListingFailed, Of: ListingFailure{}, Severity: Warning, Message: "the account's service tokens could not be listed",
		When: "an inventory failed, or showed only a part"},
	{Kind: ListingOdd, Of: OddListing{}, Severity: Warning, Message: "the account's listing has entries that cannot be read; the others are used",
		When: "an inventory showed entries that are not as documented"},
	{Kind: LimitReached, Of: LimitWait{}, Unrecorded: true, Severity: Info, Message: "rotations of the account wait for Cloudflare's request limit",
		When: "rotations have waited for the request limit for 5 seconds"},
	{Kind: LimitOver, Of: LimitEnd{}, Unrecorded: true, Severity: Info, Message: "rotations of the account no longer wait for Cloudflare's request limit",
		When: "none has waited for 30 seconds"},
	{Kind: VaultLoggedIn, Of: VaultLogin{}, Severity: Info, Message: "logged in to Vault",
		When: "a session with Vault began"},
	{Kind: VaultLoginFailed, Of: VaultLogin{}, Severity: Warning, Message: "logging in to Vault failed",
		When: "there is no session with Vault; it is tried again"},
	{Kind: VaultCredentialRefused, Of: VaultLogin{}, Severity: Warning, Message: "the credential was replaced, and logging in with the new one failed",
		When: "the old session goes on until it ends"},
	{Kind: VaultSessionEnded, Of: VaultSessionEnd{}, Severity: Info, Message: "the session with Vault ended",
		When: "a login follows at once"},
	{Kind: VaultRenewalRefused, Of: VaultRenewalFailure{}, Severity: Warning, Message: "Vault refused to renew the session: it is logged in again before its end",
		When: "the policy does not let the session renew itself"},
	{Kind: VaultRenewalFailed, Of: VaultRenewalFailure{}, Severity: Warning, Message: "renewing the session with Vault failed",
		When: "it is tried again while the session lasts"},
	{Kind: VaultMetadataRefused, Of: MetadataRefusal{}, Severity: Info, Message: "Vault does not let rotatord write custom metadata in this mount: rotations are not noted there, and nothing else changes",
		When: "the policy lacks patch for the metadata, or this Vault cannot do it. It is told once; the policy is looked at again every hour"},
	{Kind: VaultRevocationFailed, Of: VaultRevocationFailure{}, Severity: Warning, Message: "a session with Vault could not be revoked: it stays until its lease ends",
		When: "a session was replaced, or the daemon stops, and revoking its token failed"},
	{Kind: VaultTLSReloaded, Of: VaultTLS{}, Severity: Info, Message: "new files of vault.tls are in use",
		When: "a certificate, a key or a CA file has another content"},
	{Kind: VaultTLSKept, Of: VaultTLS{}, Severity: Warning, Message: "the files of vault.tls cannot be used: connections go on with what was read before",
		When: "a file is gone or damaged, or a certificate and a key do not belong together"},
	{Kind: VaultUnwrapped, Of: VaultUnwrap{}, Severity: Info, Message: "the wrapped secret ID was unwrapped, and is kept sealed in the state directory",
		When: "a new wrapping token was delivered"},
	{Kind: VaultUnwrapFailed, Of: VaultUnwrap{}, Severity: Critical, Message: "the wrapping token cannot be unwrapped: another program may have the secret ID",
		When: "a wrapping token is not valid any more, or was not created for a secret ID"},
	{Kind: VaultSecretIDUnsaved, Of: VaultSecretIDNotKept{}, Severity: Warning, Level: slog.LevelError, Message: "the unwrapped secret ID could not be kept in the state directory: a restart would lose it",
		When: "the state directory cannot be written; it is tried again every 10 seconds"},
	{Kind: TakenOver, Of: ClaimTakenOver{}, Severity: Warning, Message: "taken over from another replica, whose claim had ended",
		When: "a replica has died, or was stopped or cut off for longer than `state.shared.claim`, while it worked on the token"},
	{Kind: Copied, Of: AnswerCopied{}, Severity: Warning, Message: "the sealed answer was copied to the shared store, because it could not be delivered at once",
		When: "a delivery failed, and there are several replicas"},
	{Kind: NotCopied, Of: AnswerCopied{}, Severity: Critical, Message: "the sealed answer could not be copied to the shared store: it is only on the disk of this replica",
		When: "a delivery failed, and the shared store could not be written either; it is tried again"},
	{Kind: LateDelivered, Of: LateAnswer{}, Severity: Critical, Message: "an answer came after its claim had ended and is the latest secret: it is delivered",
		When: "a replica was stopped between its last look at the clock and its request"},
	{Kind: LateSuperseded, Of: LateAnswer{}, Severity: Warning, Message: "an answer came after its claim had ended and a later secret took its place: it is not delivered",
		When: "a replica was stopped or cut off during its request, and another one has rotated again"},
	{Kind: ReplicaLives, Of: ReplicaSeen{}, Severity: Info, Message: "another replica lives",
		When: "a replica started, or its signs of life are seen again"},
	{Kind: ReplicaDied, Of: ReplicaSeen{}, Severity: Warning, Message: "another replica gives no sign of life: its tokens are served by the others",
		When: "a replica has written nothing for three and a half of its periods"},
	{Kind: ReplicaLeft, Of: ReplicaSeen{}, Severity: Info, Message: "another replica stops: its tokens are served by the others",
		When: "a replica got SIGTERM"},
	{Kind: VaultClockJumped, Of: VaultClockJump{}, Severity: Warning, Message: "Vault's clock has jumped: claims of other replicas are counted from when they were seen",
		When: "the timestamps of Vault's answers do not fit the time between them"},
	{Kind: StandsAside, Of: StandAside{}, Severity: Critical, Message: "this replica stands aside: it begins no rotation",
		When: "its clock is wrong, or another process uses its name"},
	{Kind: WorksAgain, Of: StandAside{}, Severity: Info, Message: "this replica does not stand aside any more",
		When: "the reason is over"},
	{Kind: LedgerUnread, Of: LedgerAway{}, Severity: Critical, Message: "the shared ledger cannot be read: no rotation begins",
		When: "Vault cannot be used, at the start or later; it is tried again"},
	{Kind: LedgerRead, Of: LedgerAway{}, Severity: Info, Message: "the shared ledger can be read again",
		When: "after that"},
	{Kind: NotificationDelivered, Of: Notification{}, Severity: Info, Message: "a receiver of notifications has taken a message",
		When: "a message was delivered"},
	{Kind: NotificationFailed, Of: Notification{Result: NotificationNotTaken}, Severity: Warning, Message: "a receiver of notifications has not taken a message: it is sent again",
		When: "a message was not delivered, and the one before was. It is told once; the attempts go on"},
	{Kind: NotificationGivenUp, Of: Notification{Result: NotificationDropped}, Severity: Warning, Level: slog.LevelError, Message: "a receiver of notifications has refused a message several times: it is not sent again, and its news goes into the next message",
		When: "a receiver has refused a message five times, with an answer that sending it again does not change"},
	{Kind: WebConfigUnreadable, Of: WebConfig{}, Severity: Warning, Level: slog.LevelError, Message: "no HTTP client is served: the web configuration or what it names cannot be read",
		When: "a file of `--web.config.file` cannot be read any more"},
	{Kind: WebConfigReadable, Of: WebConfig{}, Severity: Info, Message: "HTTP clients are served again: the web configuration can be read",
		When: "it can be read again"},
	{Kind: RequestLeaves, Of: RequestLeaving{}, Severity: Info, Message: "a request that changes a secret is about to leave",
		When: "right before a rotate, create, delete or revoke request is sent to Cloudflare, once this line is on the disk. It is only in the record"},
	{Kind: AuditBegan, Of: AuditChain{}, Severity: Info, Message: "the record of events begins",
		When: "the daemon starts for the first time with that file"},
	{Kind: AuditDamaged, Of: AuditChain{}, Severity: Critical, Message: "the record of events is damaged or missing, and begins again: find out who or what changed it: rotatord audit verify",
		When: "at start, or while the daemon runs, if a file of the record was removed, replaced, cut or changed"},
	{Kind: AuditContinued, Of: AuditFile{}, Severity: Info, Message: "the record of events goes on in a new file",
		When: "the file has reached `audit.max_size` or `audit.max_age`"},
	{Kind: AuditRepaired, Of: AuditTorn{}, Severity: Warning, Message: "the record of events had an unfinished end, which was cut off",
		When: "at start after a crash of the machine"},
	{Kind: AuditChanged, Of: AuditTouched{}, Severity: Warning, Message: "another program has changed the file of the record of events: find out which one",
		When: "while the daemon runs, if something was appended to the file, or its mode or owner was changed. The chain goes on"},
	{Kind: AuditLost, Of: AuditGap{}, Severity: Warning, Message: "events are missing in the record, since it could not be written",
		When: "the record can be written again"},
	{Kind: AuditHead, Of: AuditHeadSeen{}, Severity: Info, Unrecorded: true, Message: "the head of the record of events",
		When: "at start, at stop, when a new file begins, and each hour in which lines were written: rotatord audit verify --head"},
}

// command returns the row of an operator's command.
func command(k Kind, typed string) Definition {
	return Definition{Kind: k, Of: Command{}, Severity: Info, Message: "admin command", When: typed + " reached the daemon, and was done or refused"}
}

var byKind = func() map[Kind]Definition {
	all := make(map[Kind]Definition, len(definitions))
	for _, d := range definitions {
		all[d.Kind] = d
	}
	return all
}()

// definition returns the row of a kind. A kind without one fails a test.
func (k Kind) definition() Definition {
	if d, ok := byKind[k]; ok {
		return d
	}
	return Definition{Kind: k, Severity: Warning, Message: string(k)}
}

// Recorded reports whether the record of events has the events of this kind.
func (k Kind) Recorded() bool { return !k.definition().Unrecorded }

// Definitions returns the rows of all kinds, in the order of the table.
func Definitions() []Definition { return slices.Clone(definitions) }
