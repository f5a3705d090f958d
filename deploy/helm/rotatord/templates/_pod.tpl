{{/* The pod, the same for one and for several replicas. Context: the root. */}}
{{- define "rotatord.pod" -}}
{{- $facts := include "rotatord.facts" . | fromYaml }}
metadata:
  labels:
    {{- include "rotatord.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "rotatord.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.affinity }}
  affinity:
    {{- toYaml .Values.affinity | nindent 4 }}
  {{- else if $facts.shared }}
  # Hosts of their own, where the cluster has them.
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "rotatord.selector" . | nindent 16 }}
  {{- end }}
  {{- if .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
  {{- else if $facts.shared }}
  topologySpreadConstraints:
    # Never all replicas on one host.
    - topologyKey: kubernetes.io/hostname
      maxSkew: {{ max 1 (sub (int .Values.replicas) 1) }}
      minDomains: 2
      nodeTaintsPolicy: Honor
      whenUnsatisfiable: DoNotSchedule
      labelSelector:
        matchLabels:
          {{- include "rotatord.selector" . | nindent 10 }}
    - topologyKey: topology.kubernetes.io/zone
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "rotatord.selector" . | nindent 10 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  # Longer than --shutdown-timeout: the rotation in progress may finish before SIGKILL.
  terminationGracePeriodSeconds: {{ add .Values.shutdownSeconds 15 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: rotatord
      image: {{ include "rotatord.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - run
        - --config=/etc/rotatord/config.yaml
        - --shutdown-timeout={{ .Values.shutdownSeconds }}s
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: metrics
          containerPort: {{ $facts.port }}
          protocol: TCP
      securityContext:
        allowPrivilegeEscalation: false
        privileged: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities:
          drop: [ALL]
      startupProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 15
        timeoutSeconds: 5
        failureThreshold: 4
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/rotatord/config.yaml
          subPath: config.yaml
          readOnly: true
        - name: credentials
          mountPath: /etc/rotatord/credentials
          readOnly: true
        {{- if $facts.vaultToken }}
        - name: vault-token
          mountPath: /var/run/secrets/rotatord
          readOnly: true
        {{- end }}
        {{- if or $facts.secrets $facts.workloads }}
        - name: api-token
          mountPath: /var/run/secrets/kubernetes.io/serviceaccount
          readOnly: true
        {{- end }}
        - name: state
          mountPath: /var/lib/rotatord
        - name: run
          mountPath: /run
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "rotatord.configMap" . }}
    - name: credentials
      secret:
        secretName: {{ .Values.credentialsSecret }}
        defaultMode: 0440
    {{- if $facts.vaultToken }}
    - name: vault-token
      projected:
        defaultMode: 0440
        sources:
          - serviceAccountToken:
              path: token
              audience: {{ .Values.vaultToken.audience | quote }}
              expirationSeconds: {{ .Values.vaultToken.expirationSeconds }}
    {{- end }}
    {{- if or $facts.secrets $facts.workloads }}
    - name: api-token
      projected:
        defaultMode: 0440
        sources:
          - serviceAccountToken:
              path: token
              expirationSeconds: 3600
          - configMap:
              name: kube-root-ca.crt
              items:
                - {key: ca.crt, path: ca.crt}
          - downwardAPI:
              items:
                - path: namespace
                  fieldRef: {fieldPath: metadata.namespace}
    {{- end }}
    {{- if not $facts.shared }}
    - name: state
      persistentVolumeClaim:
        claimName: {{ .Values.persistence.existingClaim | default (printf "%s-state" (include "rotatord.name" .)) }}
    {{- end }}
    - name: run
      emptyDir:
        medium: Memory
        sizeLimit: 1Mi
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
