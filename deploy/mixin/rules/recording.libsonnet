[
  // What has one ledger has one value of the label ledger: the shared one, or the instance
  // of a daemon that is alone.
  {
    record: 'instance:rotatord_ledger:group',
    expr: |||
      group by (job, instance, ledger) (rotatord_replica_info)
      or on (job, instance)
      label_replace(group by (job, instance) (rotatord_build_info or rotatord_token_info or rotatord_orders_pending), "ledger", "$1", "instance", "(.*)")
    |||,
  },
  // Replicas whose view of the ledger is old, while another one of the same ledger is up to
  // date. What they say about tokens does not count.
  {
    record: 'instance:rotatord_ledger:old',
    expr: |||
      (
        rotatord_replica_info
        unless on (job, instance)
        rotatord_ledger_last_sync_timestamp_seconds > time() - $(ledgerOld:s)
      )
      and on (job, ledger)
      (
        rotatord_replica_info
        and on (job, instance)
        rotatord_ledger_last_sync_timestamp_seconds > time() - $(ledgerOld:s)
      )
    |||,
  },
  // Requests that were not served, out of all, over failedRatioWindow. 404 (nothing stored
  // yet) and 400 (a check-and-set conflict) are answers, not failures. A redirect is a
  // failure: it is not followed.
  {
    record: 'job_instance:rotatord_vault_requests:failed_ratio15m',
    expr: |||
      sum by (job, instance) (increase(rotatord_vault_requests_total{code=~"[^124].*|401|403|429"}[$(failedRatioWindow)]))
      /
      (sum by (job, instance) (increase(rotatord_vault_requests_total[$(failedRatioWindow)])) > 0)
    |||,
  },
  {
    record: 'job_instance:rotatord_cloudflare_requests:failed_ratio15m',
    expr: |||
      sum by (job, instance) (increase(rotatord_cloudflare_requests_total{code=~"[^12].*"}[$(failedRatioWindow)]))
      /
      (sum by (job, instance) (increase(rotatord_cloudflare_requests_total[$(failedRatioWindow)])) > 0)
    |||,
  },
]
