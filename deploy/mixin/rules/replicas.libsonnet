// Several replicas that share a ledger. A daemon that is alone has none of these series.
[
  // While no rotatord runs at all, RotatordAbsent is the one alert. A daemon of the job that is
  // alone means that the ledger was moved back to it. Replicas that only lack Vault, and know
  // their tokens, live: RotatordCheckFailing and RotatordCannotRotate tell of that.
  {
    alert: 'RotatordNoReplicaAlive',
    expr: |||
      group by (job, ledger) (last_over_time(rotatord_replica_info[$(replicaKnownFor)]))
      unless on (job, ledger)
      (
        rotatord_replica_info
        and on (job, instance)
        rotatord_replicas_living > 0
        unless on (job, instance)
        (
          rotatord_replica_stands_aside == 1
          unless on (job, instance)
          (rotatord_ledger_last_sync_timestamp_seconds and on (job, instance) check:rotatord_check_failing:first{check="vault"})
        )
      )
      unless on (job)
      (rotatord_build_info unless on (job, instance) rotatord_replica_info)
      and on ()
      group(rotatord_build_info)
    |||,
    'for': '5m',
    severity: 'critical',
    summary: 'No replica of the ledger {{ $labels.ledger }} works.',
    description: |||
      For $(for:words) none of the replicas of the job {{ $labels.job }} has lived and been allowed to begin rotations: they are down, stand
      aside, or could not read the ledger since they started. None of their tokens is rotated. Present secrets keep working.
    |||,
  },
  // One that stops in an orderly way is not known any more. One that died is known for a day.
  {
    alert: 'RotatordReplicaDown',
    expr: |||
      max by (job, replica) (
        rotatord_replica_up
        unless on (job, instance)
        instance:rotatord_ledger:old
      ) == 0
      and on (job)
      rotatord_replica_up == 1
    |||,
    'for': '10m',
    severity: 'warning',
    summary: 'The replica {{ $labels.replica }} gives no sign of life.',
    description: |||
      Fewer replicas of the job {{ $labels.job }} live than are known: no other one has seen {{ $labels.replica }} work for $(for:words). They serve
      its tokens. If a token is in doubt, the answer may be on the disk of {{ $labels.replica }}: start it again.
    |||,
  },
  // In two windows one after the other: the death of one replica is told by RotatordReplicaDown.
  {
    alert: 'RotatordClaimsTakenOver',
    expr: |||
      sum by (job) (increase(rotatord_claims_taken_over_total[$(takeoverWindow)])) > 0
      and
      sum by (job) (increase(rotatord_claims_taken_over_total[$(takeoverWindow)] offset $(takeoverWindow))) > 0
    |||,
    severity: 'warning',
    summary: "Replicas of the job {{ $labels.job }} take over each other's claims again and again.",
    description: |||
      {{ $value | humanize }} token(s) in the last $(takeoverWindow:last), and others in the $(takeoverWindow:last) before. Replicas are stopped for longer than a claim, crash, or
      Vault is slow.
      {{- range printf "sum by (step) (increase(rotatord_claims_taken_over_total{job=%q}[$(lateAnswerWindow)])) > 0" $labels.job | query | sortByLabel "step" }}
      In the state {{ .Labels.step }}: {{ .Value | humanize }}.{{ end }} Those that were in the state intent are in doubt.
    |||,
  },
  // Without those that only lack Vault: RotatordLedgerViewOld and RotatordCheckFailing tell of them.
  // If all stand aside, RotatordNoReplicaAlive is the one alert.
  {
    alert: 'RotatordReplicaStandsAside',
    expr: |||
      max by (job, instance, replica) (
        rotatord_replica_info
        and on (job, instance)
        rotatord_replica_stands_aside == 1
        and on (job, instance)
        rotatord_ledger_last_sync_timestamp_seconds > time() - $(ledgerOld:s)
        and on (job, ledger)
        (rotatord_replica_info unless on (job, instance) rotatord_replica_stands_aside == 1)
      )
    |||,
    'for': '3m',
    severity: 'warning',
    summary: 'The replica {{ $labels.replica }} runs and begins no rotation.',
    description: |||
      Its clock is wrong, another process has its name, or the ledger is out of use: `rotatord status` on {{ $labels.instance }} says which
      {{- with printf "rotatord_replica_clock_offset_seconds{job=%q,instance=%q}" $labels.job $labels.instance | query }}. Its clock is {{ . | first | value | humanizeDuration }} ahead of Vault's{{ end }}.
      Other replicas go on.
    |||,
  },
  // RotatordCheckFailing tells that Vault cannot be used.
  {
    alert: 'RotatordLedgerViewOld',
    expr: |||
      count by (job, ledger) (
        rotatord_replica_info
        unless on (job, instance)
        rotatord_ledger_last_sync_timestamp_seconds > time() - $(ledgerOld:s)
        unless on (job, instance)
        (
          check:rotatord_check_failing:first{check="vault"}
          and on (job)
          ALERTS{alertname="RotatordCheckFailing",alertstate="firing",check="vault"}
        )
      )
    |||,
    'for': '5m',
    severity: 'warning',
    summary: '{{ $value }} replica(s) of the job {{ $labels.job }} do not know what the others have saved.',
    description: |||
      What they show of tokens is old, and they begin no rotation
      {{- range printf "topk(5, rotatord_replica_info{job=%q,ledger=%q} unless on (job, instance) rotatord_ledger_last_sync_timestamp_seconds > time() - $(ledgerOld:s))" $labels.job $labels.ledger | query | sortByLabel "replica" }},
      {{ .Labels.replica }} on {{ .Labels.instance }}{{ end }}. `rotatord status` there has the error.
    |||,
  },
  // A replica that has not read the ledger yet says nothing about any token.
  {
    alert: 'RotatordRecordUnreadable',
    expr: |||
      group by (job, account, token) (
        instance_token:rotatord_record:unread
        and on (job, instance)
        rotatord_ledger_last_sync_timestamp_seconds > time() - $(ledgerOld:s)
      )
      unless on (job, token)
      rotatord_token_state
    |||,
    'for': '5m',
    severity: 'warning',
    summary: 'The record of {{ $labels.token }} in the shared ledger cannot be used.',
    description: |||
      Nothing is known of the state of {{ $labels.token }}, and it is not rotated. Its record was deleted, damaged or rolled back, or a newer version of
      rotatord wrote it. `rotatord status {{ $labels.token }}` says what to type. Its present secret keeps working.
    |||,
  },
  // A replica that was killed finds the answer on its disk moments after it has started again: before the first scrape, so that
  // the series begins with 1.
  {
    alert: 'RotatordLateAnswer',
    expr: |||
      sum by (job, result) (
        increase(rotatord_late_answers_total[$(lateAnswerWindow)]) > 0
        or
        (rotatord_late_answers_total > 0 unless rotatord_late_answers_total offset $(lateAnswerWindow))
      )
    |||,
    severity: 'warning',
    summary: 'An answer of Cloudflare came after its claim had ended, and was {{ $labels.result }}.',
    description: |||
      In the last $(lateAnswerWindow:last) a replica of the job {{ $labels.job }} was stopped or cut off between its request and the answer, for longer than its claim
      {{- range printf "topk(5, increase(rotatord_late_answers_total{job=%[1]q,result=%[2]q}[$(lateAnswerWindow)]) > 0 or rotatord_late_answers_total{job=%[1]q,result=%[2]q} > 0 unless rotatord_late_answers_total{job=%[1]q,result=%[2]q} offset $(lateAnswerWindow))" $labels.job $labels.result | query | sortByLabel "instance" }}, on {{ .Labels.instance }}{{ end }}.
      {{ if eq $labels.result "superseded" }}A later secret is in use, and this one is kept and not delivered.{{ else }}It was the latest secret and was delivered. Clients of a token without a grace were refused until then.{{ end }}
    |||,
  },
  // While the replica that received the secret tells that it is pending, that is the one alert.
  {
    alert: 'RotatordCopyPending',
    expr: |||
      max by (job) (rotatord_answer_copies_pending unless on (job, instance) instance:rotatord_ledger:old) > 0
      unless on (job)
      ALERTS{alertname="RotatordSecretPending",alertstate="firing"}
    |||,
    'for': '15m',
    severity: 'warning',
    summary: '{{ $value }} new secret(s) of the job {{ $labels.job }} wait in the shared store.',
    description: |||
      They could not be delivered, and the replica that received them does not say that it has them. Any replica can deliver the copies
      {{- with printf "topk(5, max by (token) (rotatord_token_state{job=%q,state='sealed'}) == 1)" $labels.job | query }}. Tokens, five at most:{{ range sortByLabel "token" . }} {{ .Labels.token }}{{ end }}{{ end }}.
      Clients still have the previous secrets until their graces end.
    |||,
  },
]
