[
  // What all replicas use is one alert, and its text names the instances. What each machine has of
  // its own is an alert for each.
  {
    alert: 'RotatordCheckFailing',
    expr: |||
      count by (job, check, subject) (check:rotatord_check_failing:first{check=~"vault|sink|cloudflare"})
      or
      check:rotatord_check_failing:first{check!~"vault|sink|cloudflare"}
    |||,
    'for': '2m',
    severity: 'warning',
    summary: '{{ with $labels.instance }}{{ . }}: {{ end }}the check {{ $labels.check }}{{ with $labels.subject }} of {{ . }}{{ end }} fails{{ with printf "rotatord_check_failing_since_timestamp_seconds{job=%q,check=%q,subject=%q}" $labels.job $labels.check $labels.subject | query | sortByLabel "instance" }}: {{ . | first | label "reason" }}{{ end }}.',
    description: |||
      {{ if eq $labels.check "disk_space" }}The disk of the state directory is almost full. Rotations still start.
      {{- else if eq $labels.check "audit_chain" }}The record of events was missing, cut or changed, and begins again. Rotations still start.
      {{- else }}No rotation that needs it can start there. Present secrets keep working.{{ end }}
      {{- range printf "topk(5, rotatord_check_failing_since_timestamp_seconds{job=%q,check=%q,subject=%q})" $labels.job $labels.check $labels.subject | query | sortByLabel "instance" }}
      It has failed on {{ .Labels.instance }} since {{ .Value | humanizeTimestamp }}.{{ end }} `rotatord status` shows the whole error.
    |||,
  },
  // No rotation needs a receiver of notifications, so it is not in RotatordCheckFailing.
  {
    alert: 'RotatordNotificationsFailing',
    expr: |||
      last_over_time(rotatord_check_ok{check="notify"}[$(restartBridge)]) == 0
    |||,
    'for': '10m',
    severity: 'warning',
    summary: '{{ $labels.instance }}: the receiver of notifications {{ $labels.subject }} takes no messages.',
    description: |||
      Those who rely on it alone do not know what is wrong. Rotations go on. `rotatord status` shows the error, and
      `rotatord notify test {{ $labels.subject }}` tries it again.
      {{- with printf "rotatord_notification_last_success_timestamp_seconds{job=%q,instance=%q,receiver=%q} > 0" $labels.job $labels.instance $labels.subject | query }}
      It has last taken a message at {{ . | first | value | humanizeTimestamp }}.{{ end }}
    |||,
  },
  // An inventory may be a day apart. Where inventory_every is an hour, inventoryStale: 3h tells earlier.
  // rotatord_orders_pending is there for every account, also for one that was never listed.
  {
    alert: 'RotatordInventoryStale',
    expr: |||
      group by (job, account) (
        group by (job, account, ledger) (
          rotatord_orders_pending
          * on (job, instance) group_left (ledger)
          max by (job, instance, ledger) (instance:rotatord_ledger:group)
        )
        unless on (job, account, ledger)
        (rotatord_inventory_success_timestamp_seconds > time() - $(inventoryStale:s))
        * on (job, instance) group_left (ledger)
        max by (job, instance, ledger) (instance:rotatord_ledger:group)
      )
    |||,
    'for': '1h',
    severity: 'warning',
    summary: 'The service tokens of account {{ $labels.account }} are not looked at.',
    description: |||
      They could not be listed for $(inventoryStale:words), or never since the daemon started. No alert tells whether one of
      them is gone, disabled, about to end, or rotated by others.
    |||,
  },
  // 0 means that there is no session, and is in the past as well. While RotatordCheckFailing
  // fires for the same, it is the one alert of the outage; a check that comes and goes does not
  // fire, and then this one does. So it is with the two below.
  {
    alert: 'RotatordVaultSessionExpiring',
    expr: |||
      count by (job) ((rotatord_vault_session_expiry_timestamp_seconds - time()) < $(sessionEnding:s))
      unless on (job)
      ALERTS{alertname="RotatordCheckFailing",alertstate="firing",check="vault"}
    |||,
    'for': '3m',
    severity: 'warning',
    summary: 'A Vault session of the job {{ $labels.job }} is about to end, or there is none.',
    description: |||
      The Vault token in use should have been renewed or replaced long before its last $(sessionEnding:words)
      {{- range printf "topk(5, rotatord_vault_session_expiry_timestamp_seconds{job=%q} < time() + $(sessionEnding:s))" $labels.job | query | sortByLabel "instance" }}, on {{ .Labels.instance }}{{ end }}. Without
      a session no rotation passes its preflight, and a pending secret cannot be delivered.
    |||,
  },
  // It ends when another wrapping token is unwrapped. restartBridge bridges restarts.
  {
    alert: 'RotatordVaultUnwrapFailed',
    expr: 'last_over_time(rotatord_vault_unwrap_failed_timestamp_seconds[$(restartBridge)]) > 0',
    severity: 'critical',
    summary: 'The wrapping token of {{ $labels.instance }} cannot be unwrapped. Another program may have the secret ID.',
    description: |||
      A wrapping token is good for one unwrapping. This one was used before the daemon could use it, has ended, was not
      created for a secret ID of this role, or Vault refused its secret ID. If another program has unwrapped it, it can log in
      to Vault as rotatord. Rotations go on while the secret ID before it is good.
    |||,
  },
  {
    alert: 'RotatordVaultFailing',
    expr: |||
      max by (job) (job_instance:rotatord_vault_requests:failed_ratio15m) > $(failedRatio)
      unless on (job)
      ALERTS{alertname="RotatordCheckFailing",alertstate="firing",check=~"vault|sink"}
    |||,
    'for': '10m',
    severity: 'warning',
    summary: 'Vault does not serve the job {{ $labels.job }}.',
    description: |||
      {{ $value | humanizePercentage }} of the requests to Vault were refused or not answered in the last $(failedRatioWindow:last)
      {{- with printf "topk(5, job_instance:rotatord_vault_requests:failed_ratio15m{job=%q} > $(failedRatio))" $labels.job | query | sortByLabel "instance" }}{{ $i := . | first | label "instance" }}{{ range . }} on {{ .Labels.instance }}{{ end }}
      {{- with printf "topk(1, sum by (operation, code) (increase(rotatord_vault_requests_total{job=%q,instance=%q,code=~'[^124].*|401|403|429'}[$(failedRatioWindow)])))" $labels.job $i | query }},
      most often {{ . | first | label "operation" }} with {{ . | first | label "code" }}{{ end }}{{ end }}. No rotation starts while its sink cannot be written to.
    |||,
  },
  {
    alert: 'RotatordCloudflareFailing',
    expr: |||
      max by (job) (job_instance:rotatord_cloudflare_requests:failed_ratio15m) > $(failedRatio)
      unless on (job)
      ALERTS{alertname="RotatordCheckFailing",alertstate="firing",check=~"cloudflare|credential"}
    |||,
    'for': '10m',
    severity: 'warning',
    summary: "Cloudflare's API does not serve the job {{ $labels.job }}.",
    description: |||
      {{ $value | humanizePercentage }} of the requests to Cloudflare were refused or not answered in the last $(failedRatioWindow:last)
      {{- with printf "topk(5, job_instance:rotatord_cloudflare_requests:failed_ratio15m{job=%q} > $(failedRatio))" $labels.job | query | sortByLabel "instance" }}{{ $i := . | first | label "instance" }}{{ range . }} on {{ .Labels.instance }}{{ end }}
      {{- with printf "topk(1, sum by (operation, code) (increase(rotatord_cloudflare_requests_total{job=%q,instance=%q,code=~'[^12].*'}[$(failedRatioWindow)])))" $labels.job $i | query }},
      most often {{ . | first | label "operation" }} with {{ . | first | label "code" }}{{ end }}{{ end }}.
    |||,
  },
  {
    alert: 'RotatordCloudflareThrottled',
    expr: |||
      max by (job, account) (
        increase(rotatord_cloudflare_throttled_seconds_total[$(throttledWindow)]) > $(throttled:s)
        or
        (rotatord_cloudflare_throttled_seconds_total > $(throttled:s) unless rotatord_cloudflare_throttled_seconds_total offset $(throttledWindow))
      )
    |||,
    severity: 'warning',
    summary: 'Cloudflare refuses requests for account {{ $labels.account }} because of the rate limit.',
    description: |||
      In the last $(throttledWindow:last) it asked the daemon to wait for more than $(throttled:words) in all. While it does, no request is sent
      with that credential, and rotations start late.
    |||,
  },
  {
    alert: 'RotatordSinkWritesFailing',
    expr: |||
      sum by (job, sink) (
        increase(rotatord_sink_writes_total{result="failed"}[$(sinkWritesWindow)]) > 0
        or
        (rotatord_sink_writes_total{result="failed"} > 0 unless rotatord_sink_writes_total offset $(sinkWritesWindow))
      )
    |||,
    'for': '5m',
    severity: 'warning',
    summary: 'A secret could not be delivered ({{ $labels.sink }}).',
    description: |||
      In the last $(sinkWritesWindow:last) at least one delivery to a sink of the kind {{ $labels.sink }} failed. The secret
      stays sealed on the disk of the daemon that received it, and delivery is tried again.
      {{- with printf "topk(5, max by (job, token) (rotatord_token_state{job=%q,state='sealed'}) == 1)" $labels.job | query }}
      Tokens, five at most:{{ range sortByLabel "token" . }} {{ .Labels.token }}{{ with printf "rotatord_token_last_failure_info{job=%q,token=%q}" .Labels.job .Labels.token | query }} ({{ . | first | label "reason" }}){{ end }}{{ end }}.{{ end }}
    |||,
  },
]
