[
  {
    alert: 'RotatordAbsent',
    expr: 'absent(rotatord_build_info)',
    'for': '10m',
    severity: 'critical',
    summary: 'No rotatord is running, or Prometheus cannot reach any.',
    description: |||
      Prometheus has had no metrics from any rotatord for $(for:words). Nothing is rotated, and nothing else
      about rotatord can raise an alert.
    |||,
  },
  {
    alert: 'RotatordTokenUnwatched',
    expr: |||
      group by (token, account) (last_over_time(rotatord_token_info[$(tokenKnownFor)]))
      unless
      group by (token, account) (rotatord_token_info)
      and on ()
      group(rotatord_build_info)
    |||,
    'for': '15m',
    severity: 'warning',
    summary: 'No rotatord manages {{ $labels.token }} any more.',
    description: |||
      The service token {{ $labels.token }} (account {{ $labels.account }}) was managed by a rotatord within
      the last $(tokenKnownFor:last) and now is by none, although another rotatord is running. Either its daemon is
      down or the token was taken out of the configuration. Its secret keeps working and is not rotated.
    |||,
  },
  // Replicas that share a ledger count as one.
  {
    alert: 'RotatordTokenManagedTwice',
    expr: |||
      count by (token, account) (
        group by (token, account, job, ledger) (
          rotatord_token_info
          * on (job, instance) group_left (ledger)
          max by (job, instance, ledger) (instance:rotatord_ledger:group)
        )
      ) > 1
    |||,
    'for': '15m',
    severity: 'critical',
    summary: 'Two daemons that share no ledger rotate {{ $labels.token }}.',
    description: |||
      {{ $value }} running rotatord daemons (replicas of one ledger count as one) have the service token {{ $labels.token }} (account
      {{ $labels.account }}) in their configuration. They do not know of each other: each rotates it,
      and the second rotation cuts off the secret whose grace the first one promised.
    |||,
  },
  {
    alert: 'RotatordClockSkew',
    expr: |||
      abs(rotatord_clock_skew_seconds) > $(clockSkew:s)
      unless
      abs(rotatord_clock_skew_seconds) > 900
    |||,
    'for': '15m',
    severity: 'warning',
    summary: 'The clock of {{ $labels.instance }} is wrong.',
    description: |||
      It differs from Cloudflare's by {{ $value | humanizeDuration }}. Slots start at the wrong time, and
      times shown here are off by as much. Beyond 15 minutes no scheduled rotation starts.
    |||,
  },
  {
    alert: 'RotatordClockStopsRotations',
    expr: 'abs(rotatord_clock_skew_seconds) > 900',
    'for': '15m',
    severity: 'critical',
    summary: '{{ $labels.instance }} does not rotate, because its clock is wrong.',
    description: |||
      It differs from Cloudflare's by {{ $value | humanizeDuration }}. Beyond 15 minutes no scheduled rotation starts, of any token of
      this daemon. Present secrets keep working. Set the clock right: rotations then start within ten minutes, or within two hours if it was ahead.
    |||,
  },
  // Beyond five minutes the daemon is restarted and counts from 0 again, so one scrape in
  // which it was seen has to do.
  {
    alert: 'RotatordClockStepped',
    expr: |||
      max_over_time(rotatord_clock_drift_seconds[$(clockSteppedWindow)]) > $(clockStepped:s)
      or
      min_over_time(rotatord_clock_drift_seconds[$(clockSteppedWindow)]) < -$(clockStepped:s)
    |||,
    severity: 'warning',
    summary: 'The wall clock of {{ $labels.instance }} was set while rotatord ran.',
    description: |||
      It went {{ $value | humanizeDuration }} ahead of the monotonic clock since the daemon started (a minus
      means back). It was set, or the machine slept. Beyond five minutes /livez fails, and the daemon is
      restarted. No slot is served twice; after a step ahead some may be late or missed.
    |||,
  },
  {
    alert: 'RotatordConfigReloadFailed',
    expr: 'rotatord_config_last_reload_successful == 0',
    'for': '5m',
    severity: 'warning',
    summary: '{{ $labels.instance }} refused a new configuration.',
    description: |||
      The configuration before it is still in force, as a whole: tokens that were added are not rotated, and
      freezes that were added do not hold. If the file is faulty, the daemon would not start with it either.
    |||,
  },
]
