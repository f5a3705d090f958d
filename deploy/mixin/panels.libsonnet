// The kinds of panels of the dashboard. In a query, {I} after a metric follows the variables job and instance, and
// {T} token as well; {T,state="idle"} has a matcher more.
{
  local source = { type: 'prometheus', uid: '${datasource}' },

  // selected puts the variables and the matchers of _config into a query.
  selected(expr, selector)::
    local matchers = (if selector == '' then '' else selector + ',') + 'job=~"$job",instance=~"$instance"';
    std.strReplace(std.strReplace(std.stripChars(expr, '\n'), '{I', '{' + matchers), '{T', '{' + matchers + ',token=~"$token"'),

  local target(q, n, instant) = {
    datasource: source,
    editorMode: 'code',
    expr: q[0],
    legendFormat: if std.length(q) > 1 then q[1] else '__auto',
    refId: if std.length(q) > 2 then q[2] else std.char(65 + n),
    instant: instant,
    range: !instant,
  },

  local panel(type, title, description, queries, instant) = {
    type: type,
    title: title,
    [if description != '' then 'description']: description,
    datasource: source,
    targets: std.mapWithIndex(function(n, q) target(q, n, instant), queries),
  },

  local steps(list) = { mode: 'absolute', steps: [{ color: s[0], value: s[1] } for s in list] },

  // A number. It turns red at red.
  number(title, description, query, red=1, unit='none', noValue='no data'):: panel('stat', title, description, [[query]], true) + {
    size:: [3, 4],
    fieldConfig: {
      defaults: {
        unit: unit,
        thresholds: steps(if red == null then [['blue', null]] else [['green', null], ['red', red]]),
        color: { mode: 'thresholds' },
        mappings: [],
        noValue: noValue,
      },
      overrides: [],
    },
    options: {
      colorMode: if red == null then 'none' else 'background',
      graphMode: 'none',
      justifyMode: 'center',
      orientation: 'auto',
      textMode: 'auto',
      wideLayout: true,
      showPercentChange: false,
      percentChangeColorMode: 'standard',
      reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
    },
  },

  // States over time: values are names and colours, from 0 on.
  states(title, description, queries, values, height=8):: panel('state-timeline', title, description, queries, false) + {
    size:: [24, height],
    fieldConfig: {
      defaults: {
        color: { mode: 'thresholds' },
        unit: 'none',
        custom: { fillOpacity: 80, lineWidth: 0 },
        mappings: [{ type: 'value', options: { [std.toString(n)]: { text: values[n][0], color: values[n][1], index: n } for n in std.range(0, std.length(values) - 1) } }],
        thresholds: steps([['green', null]]),
      },
      overrides: [],
    },
    options: {
      mergeValues: true,
      showValue: 'auto',
      alignValue: 'left',
      rowHeight: 0.8,
      legend: { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] },
      tooltip: { mode: 'single', sort: 'none' },
    },
  },

  local graph(title, description, queries, unit, width, custom) = panel('timeseries', title, description, queries, false) + {
    size:: [width, 8],
    fieldConfig: {
      defaults: {
        unit: unit,
        custom: { showPoints: 'never', spanNulls: false, thresholdsStyle: { mode: 'off' } } + custom,
        color: { mode: 'palette-classic' },
      },
      overrides: [],
    },
    options: {
      legend: { displayMode: 'table', placement: 'bottom', showLegend: true, calcs: ['lastNotNull', 'max'] },
      tooltip: { mode: 'multi', sort: 'desc' },
    },
  },

  lines(title, description, queries, unit='s', width=12)::
    graph(title, description, queries, unit, width, { drawStyle: 'line', lineWidth: 1, fillOpacity: 5, stacking: { mode: 'none', group: 'A' } }),

  // What happened in each interval, stacked.
  bars(title, description, queries, unit='short', width=12)::
    graph(title, description, queries, unit, width, { drawStyle: 'bars', lineWidth: 1, fillOpacity: 70, stacking: { mode: 'normal', group: 'A' } }) +
    { fieldConfig+: { defaults+: { min: 0 } } },

  local override(matcher, options, properties) = {
    fieldConfig+: { overrides+: [{ matcher: { id: matcher, options: options }, properties: [{ id: id, value: properties[id] } for id in std.objectFields(properties)] }] },
  },

  byName(name, properties):: override('byName', name, properties),
  byRegexp(regexp, properties):: override('byRegexp', regexp, properties),
  colour(name, colour):: override('byName', name, { color: { mode: 'fixed', fixedColor: colour } }),

  table(title, description, columns, height=9):: panel('table', title, description, [[c.query, '__auto', c.ref] for c in columns], true) + {
    size:: [24, height],
    targets: [t { format: 'table' } for t in super.targets],
    fieldConfig: {
      defaults: { unit: 'none', color: { mode: 'thresholds' }, thresholds: steps([['text', null]]), custom: { align: 'auto', filterable: true, inspect: false }, noValue: '-' },
      overrides: [],
    },
    options: { showHeader: true, cellHeight: 'sm', frameIndex: 0 },
  },

  row(title, collapsed=false):: { type: 'row', title: title, collapsed: collapsed, panels: [], size:: [24, 1] },

  // arranged places panels one beside the other, and gives them their numbers.
  arranged(panels):: std.foldl(
    function(state, p)
      local w = p.size[0], h = p.size[1];
      local fits = state.x + w <= 24;
      local x = if fits then state.x else 0;
      local y = if fits then state.y else state.y + state.h;
      {
        x: x + w,
        y: y,
        h: if fits then std.max(state.h, h) else h,
        found: state.found + [{ id: std.length(state.found) + 1, gridPos: { h: h, w: w, x: x, y: y } } + p],
      },
    panels,
    { x: 0, y: 0, h: 0, found: [] },
  ).found,
}
