// Alerts about tokens. A daemon that is down says nothing, and what was wrong still is: so
// each trouble is kept until a daemon that has the token says otherwise. One series for each
// trouble of a token; the value is the time that matters, such as until when clients have a
// secret that works, and 0 where there is none.
[
  // Checks that fail, without those that can only fail because another one does. restartBridge
  // bridges restarts.
  {
    record: 'check:rotatord_check_failing:first',
    expr: |||
      last_over_time(rotatord_check_ok{check!~"configuration|clock|wrapping_token|notify"}[$(restartBridge)]) == 0
      unless on (job, instance, check)
      (
        last_over_time(rotatord_check_ok{check="sink"}[$(restartBridge)]) == 0
        and on (job, instance)
        last_over_time(rotatord_check_ok{check="vault"}[$(restartBridge)]) == 0
      )
      unless on (job, instance, check)
      (
        last_over_time(rotatord_check_ok{check=~"disk_space|audit"}[$(restartBridge)]) == 0
        and on (job, instance)
        last_over_time(rotatord_check_ok{check="state_directory"}[$(restartBridge)]) == 0
      )
      unless on (job, instance, check, subject)
      (
        last_over_time(rotatord_check_ok{check="cloudflare"}[$(restartBridge)]) == 0
        and on (job, instance, subject)
        last_over_time(rotatord_check_ok{check="credential"}[$(restartBridge)]) == 0
      )
    |||,
  },
  // Tokens of which a replica knows nothing, because it could not read their record.
  {
    record: 'instance_token:rotatord_record:unread',
    expr: |||
      rotatord_token_info
      and on (job, instance)
      rotatord_replica_info
      unless on (job, instance, token)
      rotatord_token_state
    |||,
  },
  // What daemons say now. in_doubt, intent, overtaken and sealed are states of the token;
  // with a pair, clients use the other service token while a secret is sealed.
  {
    record: 'instance_token:rotatord_trouble:now',
    expr: |||
      label_replace(
        (
          rotatord_token_state{state=~"in_doubt|intent|overtaken|sealed"} == 1
          unless on (job, instance, token, state)
          (rotatord_token_state{state="sealed"} and on (job, instance, token) rotatord_token_info{strategy="pair"})
        )
        * on (job, instance, token) group_left ()
        max by (job, instance, token)
        (rotatord_token_cutoff_timestamp_seconds or on (job, instance, token) rotatord_token_grace_end_timestamp_seconds)
        or
        0 * (
          rotatord_token_state{state=~"in_doubt|intent|overtaken|sealed"} == 1
          unless on (job, instance, token, state)
          (rotatord_token_state{state="sealed"} and on (job, instance, token) rotatord_token_info{strategy="pair"})
        ),
        "trouble", "$1", "state", "(.*)"
      )
    |||,
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'refused' },
    expr: |||
      (rotatord_token_verify_failing == 1)
      * on (job, instance, token) group_left ()
      max by (job, instance, token)
      (rotatord_token_cutoff_timestamp_seconds or on (job, instance, token) rotatord_token_grace_end_timestamp_seconds)
      or
      0 * (rotatord_token_verify_failing == 1)
    |||,
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'cut_off' },
    expr: 'rotatord_token_cutoff_timestamp_seconds',
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'reissue_owed' },
    expr: 'rotatord_token_reissue_owed_timestamp_seconds',
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'rotated_outside' },
    expr: 'rotatord_token_out_of_band_timestamp_seconds > 0',
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'gone' },
    expr: 'rotatord_token_gone == 1',
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'disabled' },
    expr: 'rotatord_token_enabled == 0',
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'expires' },
    expr: 'rotatord_token_expiry_timestamp_seconds < time() + $(expires:s)',
  },
  // Of a token that is retried or failing, the next rotation says only when the next attempt comes.
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'version_deletes' },
    expr: |||
      rotatord_sink_version_deletion_timestamp_seconds
      unless on (job, instance, token)
      (
        rotatord_token_next_rotation_timestamp_seconds
        unless on (job, instance, token)
        rotatord_token_consecutive_failures > 0
      )
      or on (job, instance, token, sink)
      (
        rotatord_sink_version_deletion_timestamp_seconds
        < on (job, instance, token) group_left ()
        max by (job, instance, token) (rotatord_token_next_rotation_timestamp_seconds)
      )
    |||,
  },
  // What the watch has found: since when.
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'sink_found' },
    expr: 'rotatord_sink_finding_timestamp_seconds',
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'refused_in_use' },
    expr: 'rotatord_token_secret_refused_timestamp_seconds',
  },
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'hook_failing' },
    expr: 'rotatord_token_hook_failing_timestamp_seconds',
  },
  // Due within heldUp or overdue, while a check fails that stops it. Those of Cloudflare
  // stop the tokens of one account, the others all tokens of the daemon.
  {
    record: 'instance_token:rotatord_due:held_up',
    expr: |||
      (rotatord_token_next_rotation_timestamp_seconds < time() + $(heldUp:s))
      * on (job, instance, token) group_left (account)
      max by (job, instance, token, account) (rotatord_token_info)
      and on (job, instance)
      check:rotatord_check_failing:first{check=~"state_directory|audit|vault|sink"}
      or
      (rotatord_token_next_rotation_timestamp_seconds < time() + $(heldUp:s))
      * on (job, instance, token) group_left (account)
      max by (job, instance, token, account) (rotatord_token_info)
      and on (job, instance, account)
      label_replace(check:rotatord_check_failing:first{check=~"cloudflare|credential"}, "account", "$1", "subject", "(.*)")
    |||,
  },
  // A token is in this trouble only if no replica of its ledger can begin.
  {
    record: 'instance_token:rotatord_trouble:now',
    labels: { trouble: 'held_up' },
    expr: |||
      instance_token:rotatord_due:held_up
      unless on (job, token)
      (
        rotatord_token_state{state="idle"}
        and on (job, instance)
        rotatord_replica_info
        unless on (job, instance)
        rotatord_replica_stands_aside == 1
        unless on (job, instance, token)
        instance_token:rotatord_due:held_up
      )
    |||,
  },
  // The same, and what was said last of tokens that no daemon speaks for. It ends when a
  // daemon reports the token (one that has just started cannot say yet whether it is gone, and a
  // replica that could not read the ledger nothing at all),
  // when its own daemon is up and does not have it any more, or after a week.
  {
    record: 'instance_token:rotatord_trouble:kept',
    expr: |||
      max without (state) (
        (instance_token:rotatord_trouble:now unless on (job, instance) instance:rotatord_ledger:old)
        * on (job, instance, token) group_left (account)
        max by (job, instance, token, account) (rotatord_token_info)
      )
      or
      (
        (
          instance_token:rotatord_trouble:kept{trouble!="gone"}
          unless on (token, account)
          (rotatord_token_info unless on (job, instance, token) instance_token:rotatord_record:unread)
          or
          instance_token:rotatord_trouble:kept{trouble="gone"}
          unless on (token, account)
          (
            rotatord_token_info
            and on (job, instance, account) rotatord_inventory_success_timestamp_seconds
            unless on (job, instance, token) instance_token:rotatord_record:unread
          )
        )
        unless on (job, instance, token)
        (
          instance_token:rotatord_trouble:kept
          and on (job, instance)
          rotatord_build_info
          unless on (job, instance, token)
          rotatord_token_info
        )
        and on (job, instance, token, trouble)
        last_over_time(instance_token:rotatord_trouble:now[$(troubleKeptFor)])
      )
    |||,
  },
  // A daemon that was started elsewhere, as a new pod perhaps, continues with the same alert.
  {
    record: 'token:rotatord_trouble:kept',
    expr: 'max without (instance, pod, node) (instance_token:rotatord_trouble:kept)',
  },
  {
    alert: 'RotatordTokenInDoubt',
    expr: 'token:rotatord_trouble:kept{trouble="in_doubt"}',
    'for': '2m',
    severity: 'critical',
    summary: 'It is not known whether {{ $labels.token }} was rotated.',
    description: |||
      A rotate request for {{ $labels.token }} was sent, and its outcome is unknown
      {{- with printf "rotatord_token_doubt_info{token=%[1]q,job=%[2]q} or on (token) topk(1, max_over_time(timestamp(rotatord_token_doubt_info{token=%[1]q,job=%[2]q})[7d:5m]))" $labels.token $labels.job | query }}
      ({{ . | first | label "reason" }}){{ end }}. If Cloudflare carried it out, the new secret is lost, and clients keep working only until
      {{ if gt $value 0.0 }}{{ $value | humanizeTimestamp }}{{ else }}the grace of the old one ends{{ end }}.
      $(lastKnown)
    |||,
  },
  // In every rotation without a grace this is so for a moment: so the minute.
  {
    alert: 'RotatordConsumersCutOff',
    expr: 'token:rotatord_trouble:kept{trouble="cut_off"} <= time()',
    'for': '1m',
    severity: 'critical',
    summary: 'Clients of {{ $labels.token }} have no secret that works.',
    description: |||
      Since {{ $value | humanizeTimestamp }} Cloudflare refuses the secret of {{ $labels.token }} that clients find in its sinks, as far
      as is known, and the new one is lost or not delivered. rotatord tries every few seconds.
      $(lastFailure)
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordReissueDelayed',
    expr: '(time() - token:rotatord_trouble:kept{trouble="reissue_owed"}) > $(reissueDelayed:s)',
    'for': '1m',
    severity: 'critical',
    summary: 'A lost secret of {{ $labels.token }} cannot be replaced.',
    description: |||
      For {{ $value | humanizeDuration }} another rotation of {{ $labels.token }} has been owed because a secret was lost, and it
      has not succeeded. Clients have the old secret, which is extended where that is possible, for 30 days in total.
      {{- with printf "token:rotatord_trouble:kept{trouble='cut_off',token=%q,account=%q,job=%q}" $labels.token $labels.account $labels.job | query }}
      At present it works until {{ . | first | value | humanizeTimestamp }}.{{ end }}
      $(lastFailure)
      $(lastKnown)
    |||,
  },
  // The value is 0 where there is no grace.
  {
    alert: 'RotatordSecretPendingGraceEnding',
    expr: 'token:rotatord_trouble:kept{trouble="sealed"} < time() + $(graceEnding:s)',
    'for': '5m',
    severity: 'critical',
    summary: 'Clients of {{ $labels.token }} are about to be locked out.',
    description: |||
      The new secret of {{ $labels.token }} is not in its sinks, and the previous one stops working within $(graceEnding:words), or has stopped already
      {{- if gt $value 0.0 }}: its time is {{ $value | humanizeTimestamp }}{{ end }}.
      $(lastFailure)
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSecretOvertaken',
    expr: 'token:rotatord_trouble:kept{trouble="overtaken"}',
    'for': '1m',
    severity: 'critical',
    summary: 'Two new secrets of {{ $labels.token }}, and an operator has to choose.',
    description: |||
      While a new secret of {{ $labels.token }} waited for its sink, others rotated the token, and a sink
      holds their secret. Ours is kept sealed and is not written over it. Nothing is rotated until that is decided.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordIntentStuck',
    expr: 'token:rotatord_trouble:kept{trouble="intent"}',
    'for': '5m',
    severity: 'critical',
    summary: 'A new secret of {{ $labels.token }} may be in memory only.',
    description: |||
      A rotate request for {{ $labels.token }} left more than $(for:words) ago, and its answer is not sealed on
      the disk of its daemon. Do not stop or restart the daemon before you have read the runbook.
      {{- if gt $value 0.0 }}
      The old secret works until {{ $value | humanizeTimestamp }}.{{ end }}
      $(lastKnown)
    |||,
  },
  // The time that Cloudflare's edge may take is over already when this fires.
  {
    alert: 'RotatordVerifyFailing',
    expr: 'token:rotatord_trouble:kept{trouble="refused"}',
    'for': '1m',
    severity: 'critical',
    summary: 'The new secret of {{ $labels.token }} does not work.',
    description: |||
      Every sink of {{ $labels.token }} has a new secret, and the application at its verify.url refuses that with 401. Clients
      that read it are locked out, or soon will be. The old secret's grace is extended
      {{- if gt $value 0.0 }}, at present until {{ $value | humanizeTimestamp }}{{ end }}, and nothing is rotated meanwhile.
      $(lastKnown)
    |||,
  },
  // The wait is for outside_rotation: rotate, which makes up for it by itself.
  {
    alert: 'RotatordTokenRotatedOutside',
    expr: 'token:rotatord_trouble:kept{trouble="rotated_outside"}',
    'for': '5m',
    severity: 'critical',
    summary: '{{ $labels.token }} was rotated, and not by rotatord.',
    description: |||
      An inventory shows that {{ $labels.token }} was rotated at {{ $value | humanizeTimestamp }}, and not by rotatord.
      The secret in its sinks works until the grace that was chosen then is over, or not at all. No metric tells which.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordTokenGone',
    expr: 'token:rotatord_trouble:kept{trouble="gone"}',
    'for': '5m',
    severity: 'critical',
    summary: 'The service token {{ $labels.token }} was deleted at Cloudflare, and its clients are locked out.',
    description: |||
      The last inventory did not have {{ $labels.token }}. An administrator deleted it, or the organisation's rule for
      unused tokens did. Cloudflare cannot bring it back.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordTokenDisabled',
    expr: 'token:rotatord_trouble:kept{trouble="disabled"}',
    'for': '5m',
    severity: 'critical',
    summary: 'The service token {{ $labels.token }} is disabled at Cloudflare, and its clients are locked out.',
    description: |||
      Cloudflare refuses the present and the previous secret of {{ $labels.token }} until the service token is enabled again (of a pair,
      those of one of the two). An administrator disabled it, or the organisation's rule for unused tokens did.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordTokenExpiresSoon',
    expr: '(token:rotatord_trouble:kept{trouble="expires"} - time()) >= $(expiresVerySoon:s)',
    'for': '15m',
    severity: 'warning',
    summary: 'The service token {{ $labels.token }} expires in {{ $value | humanizeDuration }}.',
    description: |||
      Rotating the secret does not renew the token: {{ $labels.token }} stops working when it expires,
      however fresh its secret is. Set renew_before, or see why renewals fail, or renew it at Cloudflare.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordTokenExpiresVerySoon',
    expr: '(token:rotatord_trouble:kept{trouble="expires"} - time()) < $(expiresVerySoon:s)',
    'for': '15m',
    severity: 'critical',
    summary: 'The service token {{ $labels.token }} expires within $(expiresVerySoon:words), or has expired.',
    description: |||
      {{ $labels.token }} has {{ $value | humanizeDuration }} left. After that all its clients are locked
      out, whatever its secret is. Renew it at Cloudflare now.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSinkVersionDeletes',
    expr: 'token:rotatord_trouble:kept{trouble="version_deletes"} >= time() + $(expiresVerySoon:s)',
    'for': '5m',
    severity: 'warning',
    summary: 'Vault will delete the secret of {{ $labels.token }} before it is rotated again.',
    description: |||
      Vault deletes the version in {{ $labels.sink }} at {{ $value | humanizeTimestamp }} by itself, because of
      delete_version_after. From then on clients that read it find nothing, although the secret still works.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSinkVersionDeletesSoon',
    expr: 'token:rotatord_trouble:kept{trouble="version_deletes"} < time() + $(expiresVerySoon:s)',
    'for': '5m',
    severity: 'critical',
    summary: 'Vault deletes the secret of {{ $labels.token }} within $(expiresVerySoon:words), or has deleted it.',
    description: |||
      Vault deletes the version in {{ $labels.sink }} at {{ $value | humanizeTimestamp }} by itself, because of
      delete_version_after, and the next rotation comes later. From then on clients that read it find nothing, although the secret still works.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSinkEmpty',
    expr: 'token:rotatord_trouble:kept{trouble="sink_found",finding=~"gone|destroyed|deleted|no_secret"}',
    'for': '1m',
    severity: 'critical',
    summary: 'Clients of {{ $labels.token }} find no secret in {{ $labels.sink }}.',
    description: |||
      Since {{ $value | humanizeTimestamp }} {{ $labels.sink }} does not hold the secret of {{ $labels.token }} any more ({{ $labels.finding }}), and it was
      not rotatord that removed it. Clients that have read the secret before keep working. rotatord status {{ $labels.token }} says what to type.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSinkChanged',
    expr: 'token:rotatord_trouble:kept{trouble="sink_found",finding=~"changed|rolled_back"}',
    'for': '1m',
    severity: 'critical',
    summary: '{{ $labels.sink }} holds another secret of {{ $labels.token }} than rotatord wrote.',
    description: |||
      Since {{ $value | humanizeTimestamp }} {{ $labels.sink }} holds {{ if eq $labels.finding "rolled_back" }}an earlier secret again{{ else }}a secret that rotatord never wrote{{ end }}.
      If it is not the right one, clients of {{ $labels.token }} that read it are locked out. rotatord status {{ $labels.token }} says what to type.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSinkNeverWritten',
    expr: 'token:rotatord_trouble:kept{trouble="sink_found",finding="never_written"}',
    'for': '30m',
    severity: 'warning',
    summary: '{{ $labels.sink }} was never written, and clients of {{ $labels.token }} find no secret there.',
    description: |||
      It was added to the configuration after the last rotation of {{ $labels.token }}. The next rotation writes it;
      rotatord rotate {{ $labels.token }} does that now.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSinkUnreadable',
    expr: 'token:rotatord_trouble:kept{trouble="sink_found",finding="unreadable"}',
    'for': '5m',
    severity: 'warning',
    summary: 'rotatord cannot read {{ $labels.sink }}, so it is not known what clients of {{ $labels.token }} find there.',
    description: |||
      Several reads in a row failed, until {{ $value | humanizeTimestamp }} and since then. rotatord status {{ $labels.token }} has the error.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSinkRestored',
    expr: 'time() - max by (job, token) (rotatord_token_restored_timestamp_seconds) < $(restoredWindow:s)',
    severity: 'warning',
    summary: 'A sink of {{ $labels.token }} did not hold its secret any more, and rotatord wrote it back.',
    description: |||
      It was {{ $value | humanizeDuration }} ago, because of outside_change. Another person or program has changed the sink:
      find out which, since rotatord stops writing it back after three times in a day.
    |||,
  },
  {
    alert: 'RotatordSecretInUseRefused',
    expr: 'token:rotatord_trouble:kept{trouble="refused_in_use"}',
    'for': '1m',
    severity: 'critical',
    summary: 'The secret that clients of {{ $labels.token }} use is refused.',
    description: |||
      Since {{ $value | humanizeTimestamp }} the application at verify.url refuses the secret of {{ $labels.token }} that its sinks hold. rotatord rotates
      nothing because of it: the Access policy, the service token or the application may be at fault.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordHookFailing',
    expr: 'token:rotatord_trouble:kept{trouble="hook_failing"}',
    'for': '10m',
    severity: 'warning',
    summary: 'A hook that follows the rotation of {{ $labels.token }} fails, so clients may still use the previous secret.',
    description: |||
      Since {{ $value | humanizeTimestamp }} clients of {{ $labels.token }} wait for a hook that tells them of the new secret. The sinks have it.
      Clients that do not know of it are locked out when the grace of the previous secret ends.
      $(lastKnown)
    |||,
  },
  {
    alert: 'RotatordSinksNotWatched',
    expr: |||
      time() - rotatord_sink_look_oldest_timestamp_seconds > $(watchPeriods) * rotatord_sink_watch_period_seconds
      unless on (job)
      ALERTS{alertname="RotatordCheckFailing",alertstate="firing",check=~"vault|sink"}
    |||,
    'for': '15m',
    severity: 'warning',
    summary: 'A sink has not been looked at for {{ $value | humanizeDuration }} on {{ $labels.instance }}.',
    description: |||
      If others change it, no alert fires. Looks pause while Vault cannot be used, and with a Vault session whose uses are
      limited (token_num_uses).
    |||,
  },
  // One alert for all tokens of a job. Its time starts when the first of them is delayed.
  {
    alert: 'RotatordCannotRotate',
    expr: 'count without (token, account) (token:rotatord_trouble:kept{trouble="held_up"})',
    'for': '10m',
    severity: 'critical',
    summary: 'rotatord cannot rotate: {{ $value }} token(s) of the job {{ $labels.job }} are due within $(heldUp:words), or overdue.',
    description: |||
      For $(for:words) something that these rotations need has failed
      {{- range printf "topk(5, rotatord_check_failing_since_timestamp_seconds{job=%q,check=~'state_directory|vault|sink|cloudflare|credential'})" $labels.job | query | sortByLabel "instance" }},
      {{ .Labels.check }}{{ with .Labels.subject }} {{ . }}{{ end }} ({{ .Labels.reason }}) on {{ .Labels.instance }}{{ else }}
      (no running rotatord says what){{ end }}. Due first, five at most
      {{- range printf "bottomk(5, token:rotatord_trouble:kept{trouble='held_up',job=%q})" $labels.job | query | sortByLabel "token" }},
      {{ .Labels.token }} at {{ .Value | humanizeTimestamp }}{{ end }}. Their present secrets keep working.
    |||,
  },
]
