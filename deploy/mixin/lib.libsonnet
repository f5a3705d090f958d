// What the rules are written with: placeholders, label matchers, durations.
//
// A placeholder in an expression or a text is $(name): a key of _config, or of the macros below.
// $(name:s) is a duration in seconds, $(name:words) is it in words ("ten minutes"), $(name:last) as in
// "in the last hour". $(for) is the time for which the alert's expression must hold.
{
  local isDigit(c) = c >= '0' && c <= '9',
  local unitSeconds = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 },
  local unitNames = { s: 'second', m: 'minute', h: 'hour', d: 'day', w: 'week' },
  local numerals = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve'],

  // parts takes a duration as Prometheus writes it apart: '1h30m' is [[1, 'h'], [30, 'm']].
  local parts(duration) = std.foldl(
    function(state, c)
      if isDigit(c) then state { number: super.number + c }
      else if std.objectHas(unitSeconds, c) && state.number != '' then { number: '', found: state.found + [[std.parseInt(state.number), c]] }
      else error 'not a duration: %s; want one such as 90s, 10m or 1h30m' % duration,
    std.stringChars(duration),
    { number: '', found: [] },
  ).found,

  seconds(duration):: std.foldl(function(sum, p) sum + p[0] * unitSeconds[p[1]], parts(duration), 0),

  // product is a number of seconds for a query, as a person would write it: 3 * 86400 for 3d.
  product(duration)::
    local p = parts(duration);
    if std.length(p) == 1 && (p[0][1] == 'd' || p[0][1] == 'h') then '%d * %d' % [p[0][0], unitSeconds[p[0][1]]]
    else std.toString($.seconds(duration)),

  words(duration):: std.join(' ', [
    (if p[0] < std.length(numerals) then numerals[p[0]] else '%d' % p[0]) + ' ' + unitNames[p[1]] + (if p[0] == 1 then '' else 's')
    for p in parts(duration)
  ]),

  last(duration):: if std.length(parts(duration)) == 1 && parts(duration)[0][0] == 1 then unitNames[parts(duration)[0][1]] else self.words(duration),

  // Sentences that several alerts end with. An alert about a token lasts while its daemon is down.
  local macros = {
    lastKnown: |||
      {{- if not (printf "rotatord_token_info{token=%q,account=%q}" $labels.token $labels.account | query) }}
      No running rotatord reports {{ $labels.token }} now: this is the last that was known.{{ end }}
    |||,
    lastFailure: |||
      {{- with printf "topk(1, max_over_time(timestamp(rotatord_token_last_failure_info{token=%q,job=%q})[1h:1m]))" $labels.token $labels.job | query }}
      The last attempt failed with: {{ . | first | label "reason" }}.{{ end }}
    |||,
  },

  // fill replaces the placeholders of a text by values.
  fill(text, values)::
    local all = macros + values;
    local pieces = std.split(text, '$(');
    local value(piece) =
      local end = std.findSubstr(')', piece)[0];
      local call = std.split(std.substr(piece, 0, end), ':');
      local known = if std.objectHas(all, call[0]) then all[call[0]] else error 'unknown placeholder $(%s)' % call[0];
      local form = if std.length(call) == 1 then '' else call[1];
      (if form == '' then (if std.isString(known) then std.rstripChars(known, '\n') else std.toString(known))
       else if form == 's' then $.product(known)
       else if form == 'words' then $.words(known)
       else if form == 'last' then $.last(known)
       else error 'unknown form $(%s)' % std.join(':', call))
      + std.substr(piece, end + 1, std.length(piece));
    std.join('', [pieces[0]] + std.map(value, pieces[1:])),

  // select puts label matchers into every selector of one of the daemon's metrics: all of them begin with rotatord_.
  // Series that the rules record have a colon in their names, and come from series that were selected.
  select(expr, matchers)::
    local nameLength(piece) =
      local ends = [i for i in std.range(0, std.length(piece) - 1) if !(isDigit(piece[i]) || piece[i] == '_' || piece[i] == ':' || (piece[i] >= 'a' && piece[i] <= 'z'))];
      if std.length(ends) == 0 then std.length(piece) else ends[0];
    local pieces = std.split(expr, 'rotatord_');
    local selected(i) =
      local piece = pieces[i], n = nameLength(piece);
      local name = std.substr(piece, 0, n), rest = std.substr(piece, n, std.length(piece));
      if std.endsWith(pieces[i - 1], ':') || std.length(std.findSubstr(':', name)) > 0 then piece
      else if std.startsWith(rest, '{') then name + '{' + matchers + ',' + std.substr(rest, 1, std.length(rest))
      else name + '{' + matchers + '}' + rest;
    if matchers == '' then expr
    else std.join('rotatord_', [pieces[0]] + [selected(i) for i in std.range(1, std.length(pieces) - 1)]),

  // line makes one line of a text that was written in several.
  line(text):: std.join(' ', [std.stripChars(l, ' ') for l in std.split(std.stripChars(text, '\n'), '\n')]),
}
