{{/* The name of all objects: that of the release if it contains the chart's, as in "helm install rotatord". */}}
{{- define "rotatord.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "rotatord.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rotatord.labels" -}}
{{ include "rotatord.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{- define "rotatord.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "rotatord.name" .) }}
{{- end }}

{{- define "rotatord.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/*
What the objects take from the configuration of rotatord, as YAML:

  port        of listen
  vaultPorts  of vault.address and vault.nodes
  vaultToken  whether it logs in to Vault with a token of its service account
  secrets     the names of the Secrets that it writes, by namespace
  state       state.dir
  shared      whether it is one of several replicas, which share a ledger

It fails where the configuration does not fit the pod. Everything else in it is for rotatord check.
*/}}
{{- define "rotatord.facts" -}}
{{- if not (trim .Values.config) }}
  {{- fail "\n\nconfig is empty: give the configuration of rotatord, with --set-file config=config.yaml (rotatord import --for kubernetes writes one)" }}
{{- end }}
{{- $config := fromYaml .Values.config }}
{{- if $config.Error }}
  {{- fail (printf "\n\nconfig is not valid YAML: %s: run rotatord check --config on the file" $config.Error) }}
{{- end }}
{{- range $key := list "state" "vault" "tokens" }}
  {{- if and (hasKey $config $key) (not (kindIs "map" (get $config $key))) }}
    {{- fail (printf "\n\nconfig: %s is not a mapping: run rotatord check --config on the file" $key) }}
  {{- end }}
{{- end }}

{{- $listen := $config.listen | default "127.0.0.1:9321" | toString }}
{{- $port := regexFind "[0-9]+$" $listen | int }}
{{- if or (not $port) (regexMatch "^(127\\.|localhost:|\\[::1\\])" $listen) }}
  {{- fail (printf "\n\nconfig: listen is %s, where probes and Prometheus cannot reach it: write listen: 0.0.0.0:9321" $listen) }}
{{- end }}

{{- $state := dig "state" "dir" "" $config }}
{{- if not (regexMatch "^/var/lib/rotatord/[^/]" $state) }}
  {{- fail (printf "\n\nconfig: state.dir is %q, which is not below the volume at /var/lib/rotatord: write state: {dir: /var/lib/rotatord/state}" $state) }}
{{- end }}
{{- $shared := hasKey ($config.state | default dict) "shared" }}
{{- if and (gt (int .Values.replicas) 1) (not $shared) }}
  {{- fail (printf "\n\nreplicas is %d, but the configuration has no state.shared: each pod would have a ledger of its own, and would rotate the same tokens. docs/replicas.md says what several replicas need" (int .Values.replicas)) }}
{{- end }}
{{- if $shared }}
  {{- if dig "state" "shared" "replica" "" $config }}
    {{- fail "\n\nconfig: state.shared.replica would give all pods the same name: remove it, and the name of a replica is that of its pod" }}
  {{- end }}
  {{- if .Values.persistence.existingClaim }}
    {{- fail "\n\npersistence.existingClaim is one volume, and with state.shared each replica has its own: remove it" }}
  {{- end }}
{{- end }}

{{- $socket := dig "admin_socket" "" $config }}
{{- if not (regexMatch "^/run/[^/]+/[^/]+$" $socket) }}
  {{- fail (printf "\n\nconfig: admin_socket is %q, but only a directory of its own below /run can be written to: write admin_socket: /run/rotatord/admin.sock" $socket) }}
{{- end }}

{{- $vaultPorts := list }}
{{- range concat (list (dig "vault" "address" "" $config)) (dig "vault" "nodes" (list) $config) }}
  {{- if hasPrefix "http" . }}
    {{- $vaultPorts = append $vaultPorts (regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default (ternary "443" "80" (hasPrefix "https:" .)) | int) }}
  {{- end }}
{{- end }}

{{- $auth := dig "vault" "auth" (dict) $config }}
{{- $vaultToken := false }}
{{- range $method := list "kubernetes" "jwt" }}
  {{- $file := dig $method "file" (ternary "/var/run/secrets/rotatord/token" "" (eq $method "kubernetes")) $auth }}
  {{- if and (hasKey $auth $method) (eq $file "/var/run/secrets/rotatord/token") }}
    {{- $vaultToken = true }}
  {{- end }}
{{- end }}

{{- $secrets := dict }}
{{- range $name, $token := dig "tokens" (dict) $config }}
  {{- $sinks := list }}
  {{- if and (kindIs "map" $token) (hasKey $token "sinks") }}
    {{- $sinks = $token.sinks }}
  {{- end }}
  {{- if not (kindIs "slice" $sinks) }}
    {{- fail (printf "\n\nconfig: tokens.%s.sinks is not a list: run rotatord check --config on the file" $name) }}
  {{- end }}
  {{- range $sink := $sinks }}
    {{- if and (kindIs "map" $sink) (hasKey $sink "kubernetes") }}
      {{- $secret := $sink.kubernetes | default dict }}
      {{- range $key := list "namespace" "name" }}
        {{- if not (kindIs "string" (get $secret $key)) }}
          {{- fail (printf "\n\nconfig: tokens.%s.sinks: %s of a kubernetes sink is missing, or is a word that YAML takes for something else: write it in quotes" $name $key) }}
        {{- end }}
      {{- end }}
      {{- $names := append (get $secrets $secret.namespace | default list) $secret.name | uniq | sortAlpha }}
      {{- $_ := set $secrets $secret.namespace $names }}
    {{- end }}
  {{- end }}
{{- end }}

{{- /* By namespace and resource, such as deployments, the names of what restart hooks restart. */}}
{{- $workloads := dict }}
{{- $owners := dict "defaults" ($config.defaults | default dict) }}
{{- range $name, $token := dig "tokens" (dict) $config }}
  {{- $_ := set $owners (printf "tokens.%s" $name) $token }}
{{- end }}
{{- range $owner, $content := $owners }}
  {{- $after := list }}
  {{- if and (kindIs "map" $content) (get $content "after") }}
    {{- $after = $content.after }}
  {{- end }}
  {{- if not (kindIs "slice" $after) }}
    {{- fail (printf "\n\nconfig: %s.after is not a list: run rotatord check --config on the file" $owner) }}
  {{- end }}
  {{- range $hook := $after }}
    {{- if and (kindIs "map" $hook) (hasKey $hook "restart") }}
      {{- $restart := $hook.restart | default dict }}
      {{- range $key := list "kind" "namespace" "name" }}
        {{- if not (kindIs "string" (get $restart $key)) }}
          {{- fail (printf "\n\nconfig: %s.after: %s of a restart hook is missing, or is a word that YAML takes for something else: write it in quotes" $owner $key) }}
        {{- end }}
      {{- end }}
      {{- if not (has $restart.kind (list "Deployment" "StatefulSet" "DaemonSet")) }}
        {{- fail (printf "\n\nconfig: %s.after: kind of a restart hook is not Deployment, StatefulSet or DaemonSet" $owner) }}
      {{- end }}
      {{- $resource := printf "%ss" (lower $restart.kind) }}
      {{- $resources := get $workloads $restart.namespace | default dict }}
      {{- $_ := set $resources $resource (append (get $resources $resource | default list) $restart.name | uniq | sortAlpha) }}
      {{- $_ := set $workloads $restart.namespace $resources }}
    {{- end }}
  {{- end }}
{{- end }}

{{- dict "port" $port "vaultPorts" ($vaultPorts | uniq) "vaultToken" $vaultToken "secrets" $secrets "workloads" $workloads "shared" $shared "state" $state | toYaml }}
{{- end }}

{{/* The name of the ConfigMap ends with a hash of its content, the same that kustomize gives it. */}}
{{- define "rotatord.configMap" -}}
{{- $content := dict "kind" "ConfigMap" "name" "" "data" (dict "config.yaml" .Values.config) | toJson }}
{{- printf "%s-config-%s" (include "rotatord.name" .) (sha256sum $content | trunc 10 | replace "0" "g" | replace "1" "h" | replace "3" "k" | replace "a" "m" | replace "e" "t") }}
{{- end }}
