{{- define "tapeline.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "tapeline.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "tapeline.selector" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "tapeline.labels" -}}
{{ include "tapeline.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "tapeline.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ .Values.serviceAccount.name | default (include "tapeline.fullname" .) }}
{{- else -}}{{ .Values.serviceAccount.name | default "default" }}{{- end -}}
{{- end -}}

{{- /* Variables of a connection. Arguments: connection, and variable: the beginning of the names. */ -}}
{{- define "tapeline.connection" -}}
{{- with .connection -}}
- name: {{ $.variable }}_URL
  {{- if .existingSecret }}
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}}
  {{- else }}
  value: {{ .url | quote }}
  {{- end }}
{{- if and .passwordSecret (not .existingSecret) }}
- name: {{ $.variable }}_PASSWORD_FILE
  value: /etc/tapeline/{{ lower $.variable }}/password
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tapeline.databaseOf" -}}
{{- $own := dict -}}
{{- if eq .component "worker" }}{{ $own = .root.Values.worker.database }}{{ end -}}
{{- if eq .component "migrate" }}{{ $own = .root.Values.migrations.database }}{{ end -}}
{{- if or $own.url $own.existingSecret }}{{ toJson $own }}{{ else }}{{ toJson .root.Values.database }}{{ end -}}
{{- end -}}

{{- /* The names by which clients reach the service. */ -}}
{{- define "tapeline.hosts" -}}
{{- $name := printf "%s-web" (include "tapeline.fullname" .) -}}
{{- $hosts := list "$(POD_IP)" $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end -}}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end -}}
{{- with .Values.settings.TAPELINE_ALLOWED_HOSTS }}{{ $hosts = append $hosts . }}{{ end -}}
{{ join "," $hosts }}
{{- end -}}

{{- /* Not empty for pods that have the key of certificates. */ -}}
{{- define "tapeline.hasSigningKey" -}}
{{- if or (eq .component "web") (and (eq .component "backup") .root.Values.backup.signingKey) }}true{{ end -}}
{{- end -}}

{{- /* Slots of a worker pod: as given, or by its limit of processors, rounded up. */ -}}
{{- define "tapeline.slots" -}}
{{- $cpu := toString (dig "limits" "cpu" "" .Values.worker.resources) -}}
{{- if .Values.worker.slots }}{{ .Values.worker.slots }}
{{- else if not $cpu }}{{ fail "worker.slots follows worker.resources.limits.cpu: give one of them" }}
{{- else if hasSuffix "m" $cpu }}{{ divf (trimSuffix "m" $cpu) 1000 | ceil }}
{{- else }}{{ ceil $cpu }}{{ end -}}
{{- end -}}

{{- define "tapeline.env" -}}
{{- $values := .root.Values -}}
{{- $routed := or $values.ingress.enabled $values.httpRoute.enabled -}}
{{ include "tapeline.connection" (dict "connection" (include "tapeline.databaseOf" . | fromJson) "variable" "TAPELINE_DATABASE") }}
{{ include "tapeline.connection" (dict "connection" $values.broker "variable" "TAPELINE_BROKER") }}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- {name: TAPELINE_HOST, value: 0.0.0.0}
- {name: TAPELINE_AUTH, value: keys}
- {name: TAPELINE_ALLOWED_HOSTS, value: {{ include "tapeline.hosts" .root | quote }}}
{{- if $values.store.url }}
- {name: TAPELINE_STORE, value: {{ $values.store.url | quote }}}
{{- end }}
{{- if $values.store.endpoint }}
- {name: TAPELINE_STORE_ENDPOINT, value: {{ $values.store.endpoint | quote }}}
{{- end }}
{{- if $values.ca.existingSecret }}
- {name: TAPELINE_CA, value: /etc/tapeline/ca/ca.crt}
{{- end }}
{{- if include "tapeline.hasSigningKey" . }}
- {name: TAPELINE_SIGNING_KEY, value: /etc/tapeline/signing/key.pem}
{{- end }}
{{- if eq .component "web" }}
{{- if $values.auth.existingSecret }}
- name: TAPELINE_API_KEYS
  valueFrom: {secretKeyRef: {name: {{ $values.auth.existingSecret }}, key: {{ $values.auth.key }}}}
{{- end }}
{{- end }}
{{- if eq .component "worker" }}
{{- if $values.worker.slots }}
- {name: TAPELINE_WORKERS, value: {{ $values.worker.slots | quote }}}
{{- else }}
- name: TAPELINE_WORKERS  # the limit in whole processors, rounded up
  valueFrom: {resourceFieldRef: {containerName: worker, resource: limits.cpu, divisor: "1"}}
{{- end }}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end }}
{{- with (index $values .component).cacheGiB }}
- {name: TAPELINE_CACHE, value: /var/lib/tapeline/cache}
# A fifth less than the volume: a folder that exceeds it costs the pod.
- {name: TAPELINE_CACHE_BYTES, value: {{ div (mul . 1073741824 4) 5 | quote }}}
{{- end }}
{{- with $values.proxy }}{{ if .url }}
- {name: HTTPS_PROXY, value: {{ .url | quote }}}
- {name: NO_PROXY, value: {{ join "," (concat (list "localhost" "127.0.0.1" ".svc" ".cluster.local") .exceptions) | quote }}}
{{- end }}{{ end }}
{{- if and $routed (not (hasKey $values.settings "TAPELINE_PROXIES")) }}
- {name: TAPELINE_PROXIES, value: "1"}
{{- end }}
{{- range $name, $value := omit $values.settings "TAPELINE_ALLOWED_HOSTS" }}
- name: {{ $name }}
  value: {{ if kindIs "bool" $value }}{{ ternary "1" "0" $value | quote }}{{ else if kindIs "float64" $value }}{{ $value | toJson | quote }}{{ else }}{{ $value | quote }}{{ end }}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tapeline.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "tapeline.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* What every container of Tapeline has: image, variables, security context, mounts. */ -}}
{{- define "tapeline.container" -}}
{{- $values := .root.Values -}}
{{- $database := include "tapeline.databaseOf" . | fromJson -}}
image: {{ include "tapeline.image" .root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
securityContext:
  {{- include "tapeline.securityContext" . | nindent 2 }}
env:
  {{- include "tapeline.env" . | nindent 2 }}
{{- with $values.store.existingSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
volumeMounts:
  - {name: home, mountPath: /var/lib/tapeline}
  - {name: tmp, mountPath: /tmp}
  {{- if (index $values .component).cacheGiB }}
  - {name: cache, mountPath: /var/lib/tapeline/cache}
  {{- end }}
  {{- if $values.store.existingClaim }}
  - {name: artifacts, mountPath: /var/lib/tapeline/artifacts}
  {{- end }}
  {{- if $values.data.existingClaim }}
  - {name: data, mountPath: /var/lib/tapeline/data, readOnly: true}
  {{- end }}
  {{- if and $database.passwordSecret (not $database.existingSecret) }}
  - {name: database, mountPath: /etc/tapeline/tapeline_database, readOnly: true}
  {{- end }}
  {{- if and $values.broker.passwordSecret (not $values.broker.existingSecret) }}
  - {name: broker, mountPath: /etc/tapeline/tapeline_broker, readOnly: true}
  {{- end }}
  {{- if $values.ca.existingSecret }}
  - {name: ca, mountPath: /etc/tapeline/ca, readOnly: true}
  {{- end }}
  {{- if eq .component "backup" }}
  - {name: backups, mountPath: /var/lib/tapeline/backups}
  {{- end }}
  {{- if include "tapeline.hasSigningKey" . }}
  - {name: signing, mountPath: /etc/tapeline/signing, readOnly: true}
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "tapeline.volumes" -}}
{{- $values := .root.Values -}}
{{- $database := include "tapeline.databaseOf" . | fromJson -}}
- {name: home, emptyDir: {sizeLimit: {{ (index $values .component).homeGiB | default 1 }}Gi}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- with (index $values .component).cacheGiB }}
- {name: cache, emptyDir: {sizeLimit: {{ . }}Gi}}
{{- end }}
{{- with $values.store.existingClaim }}
- {name: artifacts, persistentVolumeClaim: {claimName: {{ . }}}}
{{- end }}
{{- with $values.data.existingClaim }}
- {name: data, persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}}
{{- end }}
{{- if and $database.passwordSecret (not $database.existingSecret) }}
- {name: database, secret: {secretName: {{ $database.passwordSecret }}, items: [{key: {{ $database.passwordKey }}, path: password}]}}
{{- end }}
{{- if and $values.broker.passwordSecret (not $values.broker.existingSecret) }}
- {name: broker, secret: {secretName: {{ $values.broker.passwordSecret }}, items: [{key: {{ $values.broker.passwordKey }}, path: password}]}}
{{- end }}
{{- with $values.ca }}{{ if .existingSecret }}
- {name: ca, secret: {secretName: {{ .existingSecret }}, items: [{key: {{ .key }}, path: ca.crt}]}}
{{- end }}{{ end }}
{{- if eq .component "backup" }}
- {name: backups, persistentVolumeClaim: {claimName: {{ $values.backup.existingClaim }}}}
{{- end }}
{{- if include "tapeline.hasSigningKey" . }}
- {name: signing, secret: {secretName: {{ $values.signing.existingSecret }}, defaultMode: 0440, items: [{key: {{ $values.signing.key }}, path: key.pem}]}}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* A Deployment. Arguments: root, component, command, replicas (none: KEDA's), and its probes, ports and lifecycle. */ -}}
{{- define "tapeline.deployment" -}}
{{- $values := index .root.Values .component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "tapeline.fullname" .root }}-{{ .component }}
  labels: {{- include "tapeline.labels" . | nindent 4 }}
spec:
  {{- if hasKey . "replicas" }}
  replicas: {{ .replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "tapeline.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "tapeline.labels" . | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "tapeline.serviceAccount" .root }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if $values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- range $values.topologySpreadConstraints }}
        - {{- toYaml . | nindent 10 }}
          labelSelector:
            matchLabels: {{- include "tapeline.selector" $ | nindent 14 }}
        {{- end }}
      {{- end }}
      securityContext: {{- include "tapeline.podSecurityContext" . | nindent 8 }}
      initContainers:
        - name: schema
          args: [python, -m, migrations.upgrade, --wait]
          resources:
            requests: {cpu: 50m, memory: 128Mi}
            limits: {memory: 256Mi}
          {{- include "tapeline.container" . | nindent 10 }}
      containers:
        - name: {{ .component }}
          {{- with .command }}
          args: {{ toJson . }}
          {{- end }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          {{- toYaml .container | nindent 10 }}
          {{- include "tapeline.container" . | nindent 10 }}
      volumes: {{- include "tapeline.volumes" . | nindent 8 }}
{{- end -}}

{{- /* A probe that runs workers.heartbeat. Arguments: component, period, failures. */ -}}
{{- define "tapeline.heartbeat" -}}
exec: {command: [python, -m, workers.heartbeat, {{ .component }}]}
periodSeconds: {{ .period }}
timeoutSeconds: 10
failureThreshold: {{ .failures }}
{{- end -}}
