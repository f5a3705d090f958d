// The dashboard. First eight numbers: is a person needed now? Then the same over time, then every token, then
// what rotations need. Several replicas show the same tokens, so one series is taken of each before anything is added up.
// A query or a description may have placeholders: see lib.libsonnet.
local lib = import 'lib.libsonnet';
local p = import 'panels.libsonnet';

local checkStates = [['fails', 'red'], ['good', 'green']];
local tokenStates = [
  ['idle', 'green'],
  ['claimed', 'light-blue'],
  ['intent', 'blue'],
  ['sealed', 'orange'],
  ['stored', 'light-green'],
  ['in doubt', 'red'],
  ['overtaken', 'dark-red'],
];

local numbers = [
  p.number('In doubt', 'Tokens of which it is not known whether they were rotated. Runbook: RotatordTokenInDoubt.', 'sum(max by (job, token) (rotatord_token_state{T,state="in_doubt"})) or on () vector(0)'),
  p.number('Pending secrets', 'New secrets that are not in every sink. For moments in each rotation; longer: RotatordSecretPending.', 'sum(rotatord_pending_secrets{I})'),
  p.number('Failing', 'Tokens whose last attempt did not succeed. Three in a row: RotatordRotationFailing.', 'count(max by (job, token) (rotatord_token_consecutive_failures{T}) > 0) or on () vector(0)'),
  p.number('Overdue', 'Tokens that should have been rotated $(overdue:words) ago: RotatordRotationOverdue.', 'count((time() - max by (job, token) (rotatord_token_next_rotation_timestamp_seconds{T})) > $(overdue:s)) or on () vector(0)'),
  p.number('Locked out', 'Tokens that Cloudflare does not accept or does not have: disabled, deleted, or at their end.', |||
    count(
      min by (job, token) (rotatord_token_enabled{T}) == 0
      or max by (job, token) (rotatord_token_gone{T}) == 1
      or max by (job, token) (rotatord_token_expiry_timestamp_seconds{T}) < time()
    ) or on () vector(0)
  |||),
  p.number('Changed by others', 'Tokens that others rotated, or whose sinks hold something else than rotatord wrote.', |||
    count(
      max by (job, token) (rotatord_token_out_of_band_timestamp_seconds{T})
      or max by (job, token) (rotatord_sink_finding_timestamp_seconds{T})
    ) or on () vector(0)
  |||),
  p.number('Failing checks', 'Things that rotations need and that are not there. `rotatord status` names them.', 'count(min by (job, check, subject) (rotatord_check_ok{I}) == 0) or on () vector(0)'),
  p.number('Next rotation', 'When the next attempt is due.', 'min(rotatord_token_next_rotation_timestamp_seconds{T}) * 1000', red=null, unit='dateTimeFromNow', noValue='nothing planned'),
];

local troubles = [
  p.states('Checks', 'Red: something that rotations need is missing. They are looked at again every 15 seconds while they fail.', [['min by (instance, check, subject) (rotatord_check_ok{I})', '{{instance}} {{check}} {{subject}}']], checkStates, height=6),
  p.lines('Tokens that need a person', 'How many tokens are in each of these troubles. All of them at 0 is the normal state.', [
    ['sum(max by (job, token) (rotatord_token_state{T,state="in_doubt"})) or on () vector(0)', 'in doubt'],
    ['sum(max by (job, token) (rotatord_token_state{T,state="overtaken"})) or on () vector(0)', 'overtaken'],
    ['count(max by (job, token) (rotatord_token_cutoff_timestamp_seconds{T}) < time()) or on () vector(0)', 'clients cut off'],
    ['count(max by (job, token) (rotatord_token_reissue_owed_timestamp_seconds{T})) or on () vector(0)', 'secret lost'],
    ['sum(max by (job, token) (rotatord_token_gone{T})) or on () vector(0)', 'gone'],
    ['count(min by (job, token) (rotatord_token_enabled{T}) == 0) or on () vector(0)', 'disabled'],
    ['count(max by (job, token) (rotatord_token_out_of_band_timestamp_seconds{T})) or on () vector(0)', 'rotated by others'],
    ['count(max by (job, token, sink, finding) (rotatord_sink_finding_timestamp_seconds{T})) or on () vector(0)', 'sinks changed'],
    ['sum(max by (job, token) (rotatord_token_verify_failing{T})) or on () vector(0)', 'new secret refused'],
    ['count(max by (job, token) (rotatord_token_secret_refused_timestamp_seconds{T})) or on () vector(0)', 'secret in use refused'],
  ], unit='none'),
  p.lines('Tokens that wait', 'Paused, without a next rotation, with an order, or with a service token that is still to be deleted.', [
    ['count(max by (job, token) (rotatord_token_consecutive_failures{T}) > 0) or on () vector(0)', 'failing'],
    ['sum(max by (job, token) (rotatord_token_paused{T})) or on () vector(0)', 'paused'],
    ['count(group by (job, token) (rotatord_token_info{T}) unless on (job, token) rotatord_token_next_rotation_timestamp_seconds{T}) or on () vector(0)', 'no next rotation'],
    ['sum(max by (job, account) (rotatord_orders_pending{I}))', 'ordered'],
    ['sum(max by (job, token) (rotatord_replaced_tokens{T})) or on () vector(0)', 'replaced, not deleted'],
    ['sum(rotatord_pending_secrets{I})', 'secret not in every sink'],
  ], unit='none'),
  p.lines('Time left', 'Until the first service token ends, the Vault session, and the client certificate for Vault where there is one.', [
    ['min(rotatord_token_expiry_timestamp_seconds{T} - time())', 'first service token'],
    ['min by (instance) (rotatord_vault_session_expiry_timestamp_seconds{I} - time())', '{{instance}}: Vault session'],
    ['max by (job, token) (rotatord_token_grace_end_timestamp_seconds{T} - time()) > 0', '{{token}}: grace'],
  ]),
  p.lines('Age', 'What grows old when something does not run: the oldest pending secret, inventory, and look at a sink; the last success.', [
    ['time() - rotatord_pending_secret_oldest_timestamp_seconds{I}', '{{instance}}: pending secret'],
    ['time() - max by (job, account) (rotatord_inventory_success_timestamp_seconds{I})', '{{account}}: inventory'],
    ['time() - min(rotatord_sink_look_oldest_timestamp_seconds{I})', 'look at a sink'],
    ['time() - max(rotatord_token_last_success_timestamp_seconds{T})', 'last rotation that succeeded'],
  ]),
];

local column(ref, name, query, override={}) = { ref: ref, name: name, query: query, override: override };
local moment = { unit: 'dateTimeFromNow' };
local columns = [
  column('info', null, 'group by (token, account, strategy, schedule) (rotatord_token_info{T})'),
  column('next', 'Next rotation', 'max by (token) (rotatord_token_next_rotation_timestamp_seconds{T}) * 1000', moment),
  column('last', 'Last success', 'max by (token) (rotatord_token_last_success_timestamp_seconds{T}) * 1000', moment),
  column('grace', 'Grace of the previous secret ends', 'max by (token) (rotatord_token_grace_end_timestamp_seconds{T}) * 1000', moment),
  column('expiry', 'Token expires', 'max by (token) (rotatord_token_expiry_timestamp_seconds{T}) * 1000', moment),
  column('seen', 'Last used', 'max by (token) (rotatord_token_last_seen_timestamp_seconds{T}) * 1000', moment),
  column('fail', 'Failures in a row', 'max by (token) (rotatord_token_consecutive_failures{T})', {
    'custom.cellOptions': { type: 'color-background', mode: 'basic' },
    thresholds: { mode: 'absolute', steps: [{ color: 'transparent', value: null }, { color: 'orange', value: 1 }, { color: 'red', value: 3 }] },
  }),
  column('enabled', 'Enabled', 'min by (token) (rotatord_token_enabled{T})', {
    'custom.cellOptions': { type: 'color-text' },
    mappings: [{ type: 'value', options: { '0': { text: 'disabled', color: 'red', index: 0 }, '1': { text: 'yes', index: 1 } } }],
  }),
  column('paused', 'Paused', 'max by (token) (rotatord_token_paused{T})', {
    'custom.cellOptions': { type: 'color-text' },
    mappings: [{ type: 'value', options: { '0': { text: 'no', index: 0 }, '1': { text: 'paused', color: 'orange', index: 1 } } }],
  }),
];

local everyToken =
  std.foldl(function(table, c) if c.override == {} then table else table + p.byName(c.name, c.override), columns, p.table('Every token', 'What the ledger and Cloudflare say of each token, now. An empty cell: not known, or does not apply.', columns)) + {
    options+: { sortBy: [{ displayName: 'Next rotation', desc: false }] },
    local names = ['token', 'account', 'schedule', 'strategy'] + ['Value #' + c.ref for c in columns[1:]],
    transformations: [
      { id: 'merge', options: {} },
      {
        id: 'organize',
        options: {
          excludeByName: { Time: true, 'Value #info': true },
          renameByName: { token: 'Token', account: 'Account', schedule: 'Schedule', strategy: 'Strategy' } + { ['Value #' + c.ref]: c.name for c in columns[1:] },
          indexByName: { [names[n]]: n for n in std.range(0, std.length(names) - 1) },
        },
      },
    ],
  };

local tokens = [
  everyToken,
  p.states('State', 'Idle, but for seconds. A bar that stays is a rotation that does not move; red is in doubt.', [[
    'max by (token) (sum by (job, instance, token) (' + std.join(' or ', ['%d * rotatord_token_state{T,state="%s"}' % [n, std.strReplace(tokenStates[n][0], ' ', '_')] for n in std.range(0, std.length(tokenStates) - 1)]) + '))',
    '{{token}}',
  ]], tokenStates, height=9),
];

local rotations = [
  p.bars('Attempts by result', 'Attempts that ended in each interval.', [['sum by (result) (increase(rotatord_rotations_total{T}[$__rate_interval]))', '{{result}}']])
  + p.colour('success', 'green') + p.colour('failed', 'orange') + p.colour('in_doubt', 'red') + p.colour('skipped', 'blue'),
  p.bars('Attempts by token and trigger', 'catch_up: slots passed while no daemon ran. recovery: continued, or issued again, after a crash or a doubt.', [['sum by (token, trigger) (increase(rotatord_rotations_total{T}[$__rate_interval])) > 0', '{{token}} {{trigger}}']]),
  p.lines('Duration of an attempt', 'Median and 99th percentile over the time range shown.', [
    ['histogram_quantile(0.5, sum by (le, result) (increase(rotatord_rotation_duration_seconds_bucket{I}[$__range])))', '{{result}} p50'],
    ['histogram_quantile(0.99, sum by (le, result) (increase(rotatord_rotation_duration_seconds_bucket{I}[$__range])))', '{{result}} p99'],
  ], width=8),
  p.lines('Duration of each step', '99th percentile over the time range shown. It says where a slow rotation waits.', [['histogram_quantile(0.99, sum by (le, step) (increase(rotatord_rotation_step_duration_seconds_bucket{I}[$__range])))', '{{step}}']], width=8),
  p.lines('Lag behind the schedule', 'From due time to start, median and 99th percentile over the time range shown; and slots that were missed, or that a freeze took away.', [
    ['histogram_quantile(0.5, sum by (le) (increase(rotatord_schedule_lag_seconds_bucket{I}[$__range])))', 'p50'],
    ['histogram_quantile(0.99, sum by (le) (increase(rotatord_schedule_lag_seconds_bucket{I}[$__range])))', 'p99'],
    ['sum(increase(rotatord_slots_missed_total{T}[$__rate_interval]))', 'slots missed'],
    ['sum(increase(rotatord_slots_frozen_total{T}[$__rate_interval]))', 'slots frozen'],
  ], width=8)
  + p.byRegexp('/^slots (missed|frozen)$/', { unit: 'none', 'custom.axisPlacement': 'right', 'custom.drawStyle': 'points', 'custom.showPoints': 'always' }),
];

local cloudflare = [
  p.bars('Requests to Cloudflare by operation and status', '', [['sum by (operation, code) (increase(rotatord_cloudflare_requests_total{I}[$__rate_interval]))', '{{operation}} {{code}}']], width=8),
  p.lines('Time until Cloudflare answers', '95th percentile by operation.', [['histogram_quantile(0.95, sum by (le, operation) (rate(rotatord_cloudflare_request_duration_seconds_bucket{I}[$__rate_interval])))', '{{operation}}']], width=8),
  p.lines('Request budget', 'What Cloudflare says is left in its present period of five minutes, and for how long it asked to wait.', [
    ['min by (account) (rotatord_cloudflare_ratelimit_remaining{I})', '{{account}}: left'],
    ['sum by (account) (increase(rotatord_cloudflare_throttled_seconds_total{I}[$__rate_interval]))', '{{account}}: refused for'],
  ], unit='short', width=8)
  + p.byRegexp('/refused for$/', { unit: 's', 'custom.axisPlacement': 'right', 'custom.drawStyle': 'bars' }),
  p.bars('Renewals by result', 'Renewals of service tokens, not of their secrets.', [['sum by (token, result) (increase(rotatord_renewals_total{T}[$__rate_interval])) > 0', '{{token}}: {{result}}']]),
  p.bars('Verifications by result', 'What new secrets were found to be at verify.url; unknown where nothing was proven.', [['sum by (token, result) (increase(rotatord_verifications_total{T}[$__rate_interval])) > 0', '{{token}}: {{result}}']]),
];

local sinks = [
  p.bars('Requests to Vault by operation and status', '', [['sum by (operation, code) (increase(rotatord_vault_requests_total{I}[$__rate_interval]))', '{{operation}} {{code}}']]),
  p.bars('Deliveries by sink and result', '', [
    ['sum by (sink, result) (increase(rotatord_sink_writes_total{I}[$__rate_interval]))', '{{sink}} {{result}}'],
    ['sum by (result) (increase(rotatord_sink_restores_total{I}[$__rate_interval]))', 'written back: {{result}}'],
  ]),
  p.bars('Looks at sinks by result', '', [['sum by (sink, result) (increase(rotatord_sink_looks_total{I}[$__rate_interval]))', '{{sink}} {{result}}']]),
  p.bars('Secrets in use tried again, by result', 'Where verify.every is set.', [['sum by (result) (increase(rotatord_secret_in_use_probes_total{I}[$__rate_interval]))', '{{result}}']]),
];

local told = [
  p.bars('Hooks by kind and result', 'What follows a rotation: programs, webhooks, restarts.', [['sum by (kind, result) (increase(rotatord_hooks_total{I}[$__rate_interval]))', '{{kind}}: {{result}}']]),
  p.bars('Notifications by receiver and result', '', [['sum by (receiver, result) (increase(rotatord_notifications_total{I}[$__rate_interval]))', '{{receiver}}: {{result}}']]),
];

local daemon = [
  p.lines('Clock skew and drift', "Skew: how far Cloudflare's clock is ahead of the local one. Drift: by how much the wall clock was set, or the machine slept, since the daemon started.", [
    ['rotatord_clock_skew_seconds{I}', '{{instance}}: skew'],
    ['rotatord_clock_drift_seconds{I}', '{{instance}}: drift'],
  ], width=8),
  p.states('Configuration', 'Whether the last reload was taken.', [['min by (instance) (rotatord_config_last_reload_successful{I})', '{{instance}}']], [['refused', 'red'], ['taken', 'green']]) + { size:: [8, 8] },
  p.states('Version', '', [['group by (version, revision, instance) (rotatord_build_info{I})', '{{instance}} {{version}} ({{revision}})']], [['down', 'red'], ['runs', 'green']]) + { size:: [8, 8] },
];

local replicas = [
  p.states('Replicas', 'Whether each replica works, as another one or itself sees it. One that has stopped in an orderly way is not shown.', [['max by (replica) (rotatord_replica_up{I})', '{{replica}}']], checkStates, height=6),
  p.lines('Replicas and claims', '', [
    ['max(rotatord_replicas_living{I})', 'living'],
    ['sum(rotatord_replica_stands_aside{I})', 'stand aside'],
    ['sum(rotatord_claims_held{I})', 'claims held'],
    ['sum(max by (job) (rotatord_answer_copies_pending{I}))', 'copies pending'],
    ['sum(increase(rotatord_claims_taken_over_total{I}[$__rate_interval]))', 'claims taken over'],
  ], unit='none', width=8),
  p.lines('Late answers and copies', 'Answers that came after their claim had ended, and copies of answers that could not be delivered at once.', [
    ['sum by (result) (increase(rotatord_late_answers_total{I}[$__rate_interval])) > 0', 'late answer: {{result}}'],
    ['sum by (result) (increase(rotatord_answer_copies_total{I}[$__rate_interval])) > 0', 'copy: {{result}}'],
  ], unit='none', width=8),
  p.lines('Views of the ledger and clocks', "How old each replica's view is, and how far its clock is ahead of Vault's. Beyond 30 s from the median it stands aside.", [
    ['time() - rotatord_ledger_last_sync_timestamp_seconds{I}', '{{instance}}: view'],
    ['rotatord_replica_clock_offset_seconds{I}', '{{instance}}: clock'],
    ['max(increase(rotatord_vault_clock_jumps_total{I}[$__rate_interval]))', "jumps of Vault's clock"],
  ], width=8),
];

local variable(name, label, definition) = {
  name: name,
  label: label,
  type: 'query',
  datasource: { type: 'prometheus', uid: '${datasource}' },
  definition: definition,
  query: { query: definition, refId: 'V', qryType: 1 },
  refresh: 2,
  sort: 1,
  multi: true,
  includeAll: true,
  allValue: '.*',
  regex: '',
  hide: 0,
  skipUrlSync: false,
  options: [],
  current: { text: ['All'], value: ['$__all'] },
};

{
  local config = $._config,
  local selector = config.selector,
  local filled(text) = lib.fill(text, config),
  local chosen = if selector == '' then '' else '{' + selector + '}',
  local and = if selector == '' then '' else selector + ',',

  grafanaDashboards+:: {
    'rotatord.json': {
      uid: 'rotatord',
      title: 'rotatord',
      description: 'Rotation of Cloudflare Access service tokens. Metrics: docs/metrics.md. Alerts: docs/runbook.md.',
      tags: ['rotatord'],
      schemaVersion: 38,
      version: 1,
      editable: true,
      graphTooltip: 1,
      refresh: '1m',
      time: { from: 'now-24h', to: 'now' },
      timezone: '',
      weekStart: '',
      fiscalYearStartMonth: 0,
      liveNow: false,
      links: [],
      annotations: {
        list: [
          { builtIn: 1, datasource: { type: 'grafana', uid: '-- Grafana --' }, enable: true, hide: true, iconColor: 'rgba(0, 211, 255, 1)', name: 'Annotations & Alerts', type: 'dashboard' },
          {
            datasource: { type: 'prometheus', uid: '${datasource}' },
            enable: true,
            hide: false,
            iconColor: 'green',
            name: 'Rotations',
            titleFormat: 'rotated',
            textFormat: '{{token}}',
            step: '60s',
            expr: p.selected('changes(rotatord_token_last_success_timestamp_seconds{T}[1m]) > 0', selector),
          },
        ],
      },
      templating: {
        list: [
          { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus', refresh: 1, hide: 0, multi: false, includeAll: false, regex: '', skipUrlSync: false, options: [], current: { text: 'default', value: 'default' } },
          variable('job', 'Job', 'label_values(rotatord_build_info%s, job)' % chosen),
          variable('instance', 'Instance', 'label_values(rotatord_build_info{%sjob=~"$job"}, instance)' % and),
          variable('token', 'Token', 'label_values(rotatord_token_info{%sjob=~"$job",instance=~"$instance"}, token)' % and),
        ],
      },
      panels: [
        panel {
          [if std.objectHas(panel, 'description') then 'description']: filled(super.description),
          [if std.objectHas(panel, 'targets') then 'targets']: [t { expr: p.selected(filled(super.expr), selector) } for t in super.targets],
        }
        for panel in p.arranged(
          numbers
          + [p.row('What is wrong, and since when')] + troubles
          + [p.row('Tokens')] + tokens
          + [p.row('Rotations')] + rotations
          + [p.row('Cloudflare')] + cloudflare
          + [p.row('Vault and sinks')] + sinks
          + [p.row('Hooks and notifications')] + told
          + [p.row('The daemon')] + daemon
          + [p.row('Replicas that share a ledger')] + replicas
        )
      ],
    },
  },
}
