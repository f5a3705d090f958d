[
  {
    alert: 'RotatordSecretPending',
    expr: '(time() - rotatord_pending_secret_oldest_timestamp_seconds) > $(secretPending:s) and rotatord_pending_secrets > 0',
    'for': '1m',
    severity: 'warning',
    summary: 'A new secret has not reached its sinks.',
    description: |||
      For {{ $value | humanizeDuration }} a secret that Cloudflare issued has been sealed on the disk of
      {{ $labels.instance }} and is not confirmed by every sink. It is the only copy, unless replicas share a ledger and could store one there. Delivery is tried
      again and again; clients still have the previous secret until its grace ends.
      {{- with printf "topk(5, rotatord_token_state{job=%q,instance=%q,state='sealed'} == 1)" $labels.job $labels.instance | query }}
      Tokens, five at most:{{ range sortByLabel "token" . }} {{ .Labels.token }}{{ with printf "rotatord_token_last_failure_info{job=%q,instance=%q,token=%q}" .Labels.job .Labels.instance .Labels.token | query }} ({{ . | first | label "reason" }}){{ end }}{{ end }}.{{ end }}
    |||,
  },
  {
    alert: 'RotatordRotationStuck',
    expr: |||
      max by (job, token, state) (
        rotatord_token_state{state=~"claimed|stored"}
        unless on (job, instance)
        instance:rotatord_ledger:old
      ) == 1
    |||,
    'for': '30m',
    severity: 'warning',
    summary: 'The rotation of {{ $labels.token }} does not move.',
    description: |||
      It has been in the step {{ $labels.state }} for $(for:words); each step is a matter of seconds.
    |||,
  },
  // No exception for pauses and freezes is needed: what they delay has its next
  // rotation at their end, or none. What they do not delay must not be hidden here.
  {
    alert: 'RotatordRotationOverdue',
    expr: |||
      time() - max by (job, token) (
        rotatord_token_next_rotation_timestamp_seconds
        unless on (job, instance)
        instance:rotatord_ledger:old
      ) > $(overdue:s)
      unless on (job, token)
      rotatord_token_state{state="in_doubt"} == 1
    |||,
    'for': '5m',
    severity: 'warning',
    summary: '{{ $labels.token }} should have been rotated by now.',
    description: |||
      The rotation of {{ $labels.token }} has been due for {{ $value | humanizeDuration }}. A due rotation
      starts within seconds, and one that fails, is paused or lies in a freeze gets a new due time.
    |||,
  },
  // A token that is paused does not fail again, unless it has something in progress or a lost
  // secret to make up for: then its next attempt is never more than an hour away.
  {
    alert: 'RotatordRotationFailing',
    expr: |||
      max by (job, token) (
        rotatord_token_consecutive_failures
        unless on (job, instance)
        instance:rotatord_ledger:old
      ) >= $(failures)
      unless on (job, token)
      (
        rotatord_token_paused == 1
        unless on (job, token)
        (rotatord_token_next_rotation_timestamp_seconds - time()) <= 3600
      )
    |||,
    'for': '5m',
    severity: 'warning',
    summary: 'Rotations of {{ $labels.token }} fail{{ with printf "rotatord_token_last_failure_info{job=%q,token=%q}" $labels.job $labels.token | query }}: {{ . | first | label "reason" }}{{ end }}.',
    description: |||
      The last {{ $value }} attempts to rotate {{ $labels.token }} failed. Its present secret keeps working;
      the next attempt comes by itself. `rotatord status {{ $labels.token }}` shows the whole error.
    |||,
  },
  {
    alert: 'RotatordSlotsMissed',
    expr: |||
      sum by (job, token) (
        increase(rotatord_slots_missed_total[$(slotsMissedWindow)]) > 0
        or
        (rotatord_slots_missed_total > 0 unless rotatord_slots_missed_total offset $(slotsMissedWindow))
      )
    |||,
    severity: 'warning',
    summary: 'A rotation of {{ $labels.token }} was missed.',
    description: |||
      In the last $(slotsMissedWindow:last) it was found that slots of {{ $labels.token }} had passed without a rotation, or without
      one before their window was over: rotatord was not running, every try failed, or the token was paused.
      Freezes do not count. With catch_up: once one rotation has made up for them; with skip the secret stays
      as it is until the next slot.
    |||,
  },
  // pauseBridge bridges restarts, so that the time does not start again.
  {
    alert: 'RotatordTokenPaused',
    expr: 'max by (job, token) (last_over_time(rotatord_token_paused[$(pauseBridge)])) == 1',
    'for': '3d',
    severity: 'warning',
    summary: '{{ $labels.token }} has been paused for $(for:words).',
    description: |||
      None of its scheduled rotations starts until the pause ends. If it was forgotten, lift it with
      `rotatord resume {{ $labels.token }}`, or, if all tokens are paused, with `rotatord resume --all`.
    |||,
  },
  // A renewal that failed is tried again within the hour.
  {
    alert: 'RotatordRenewalFailing',
    expr: |||
      sum by (job, token) (
        increase(rotatord_renewals_total{result="failed"}[$(renewalWindow)]) > 0
        or
        (rotatord_renewals_total{result="failed"} > 0 unless rotatord_renewals_total{result="failed"} offset $(renewalWindow))
      )
      unless on (job, token)
      (
        increase(rotatord_renewals_total{result="success"}[$(renewalWindow)]) > 0
        or
        (rotatord_renewals_total{result="success"} > 0 unless rotatord_renewals_total{result="success"} offset $(renewalWindow))
      )
    |||,
    'for': '10m',
    severity: 'warning',
    summary: 'The service token {{ $labels.token }} could not be renewed.',
    description: |||
      It ends soon, and renewing it failed at least once in the last $(renewalWindow:last) and did not succeed since. It is tried
      again at least every hour. When it ends, all its clients are locked out, however fresh its secret is.
    |||,
  },
  {
    alert: 'RotatordOldTokenNotDeleted',
    expr: |||
      max by (job, token) (
        (rotatord_replaced_tokens unless on (job, instance) instance:rotatord_ledger:old) > 1
        or
        (
          (rotatord_replaced_tokens unless on (job, instance) instance:rotatord_ledger:old) > 0
          unless on (job, token)
          rotatord_token_grace_end_timestamp_seconds > time()
        )
      )
    |||,
    'for': '1h',
    severity: 'warning',
    summary: 'An old service token of {{ $labels.token }} cannot be deleted.',
    description: |||
      {{ $labels.token }} was replaced, the grace is over, and {{ $value }} service token(s) whose place others took are still
      there: the secrets that should be dead work on. Most often an Access policy still names the old one.
    |||,
  },
  {
    alert: 'RotatordTokenUnused',
    expr: '(time() - max by (job, token) (rotatord_token_last_seen_timestamp_seconds)) > $(unused:s)',
    'for': '1h',
    severity: 'warning',
    summary: 'No client uses the service token {{ $labels.token }}.',
    description: |||
      Cloudflare last saw {{ $labels.token }} {{ $value | humanizeDuration }} ago. Organizations can have
      tokens disabled or deleted by themselves after 30 days without use. Or its clients may use
      something else.
    |||,
  },
]
