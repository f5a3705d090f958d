// The alert rules and the dashboard of rotatord. Import this file, override _config, and render
// prometheusAlerts and grafanaDashboards: see README.md.
local lib = import 'lib.libsonnet';

(import 'config.libsonnet') + (import 'dashboard.libsonnet') +
{
  local config = self._config,

  local expr(r, values) = std.stripChars(lib.select(lib.fill(r.expr, values), config.selector), '\n'),

  local recorded(r) = {
    record: r.record,
    expr: expr(r, config),
    [if std.objectHas(r, 'labels') then 'labels']: r.labels,
  },

  local alert(r) =
    local changed = std.get(config.alerts, r.alert, {});
    local hold = std.get(changed, 'for', std.get(r, 'for', config.defaultFor));
    local values = config { 'for': if hold == '' then '0s' else hold };
    {
      alert: r.alert,
      expr: expr(r, values),
      [if hold != '' then 'for']: hold,
      labels: { severity: std.get(changed, 'severity', r.severity) } + config.labels,
      annotations: {
        summary: lib.fill(r.summary, values),
        description: lib.line(lib.fill(r.description, values)),
        runbook_url: config.runbookURL + '#' + std.asciiLower(r.alert),
      },
    },

  local group(name, rules) = {
    name: 'rotatord.' + name,
    rules: [
      if std.objectHas(r, 'record') then recorded(r) else alert(r)
      for r in rules
      if !std.objectHas(r, 'alert') || std.get(std.get(config.alerts, r.alert, {}), 'enabled', true)
    ],
  },

  // A name that no alert has is a mistake of whoever wrote it, and would change nothing.
  local known = [r.alert for g in self._groups for r in g.rules if std.objectHas(r, 'alert')],
  assert std.all([std.member(known, name) for name in std.objectFields(config.alerts)]) : 'alerts: no such alert: ' + std.join(', ', [name for name in std.objectFields(config.alerts) if !std.member(known, name)]),

  // Recorded series come first in their group, since what follows uses them.
  _groups:: [
    { name: 'recording', rules: import 'rules/recording.libsonnet' },
    { name: 'daemon', rules: import 'rules/daemon.libsonnet' },
    { name: 'replicas', rules: import 'rules/replicas.libsonnet' },
    { name: 'tokens', rules: import 'rules/tokens.libsonnet' },
    { name: 'rotations', rules: import 'rules/rotations.libsonnet' },
    { name: 'dependencies', rules: import 'rules/dependencies.libsonnet' },
  ],

  prometheusAlerts+:: { groups+: [group(g.name, g.rules) for g in $._groups] },
}
