{{/* Arguments of `peregrine serve`. */}}
{{- define "peregrine.args" -}}
{{- $args := list "--num-shard" (include "peregrine.numShard" .) -}}
{{- $args = concat $args (list "--graceful-termination-timeout" (toString .Values.termination.drainSeconds)) -}}
{{- with .Values.model.id }}{{ $args = concat (list "--model-id" .) $args }}{{ end -}}
{{- with .Values.model.revision }}{{ $args = concat $args (list "--revision" .) }}{{ end -}}
{{- toYaml (concat $args .Values.extraArgs) -}}
{{- end -}}

{{/* What every container of ours has: image, environment, resources, mounts, no rights. */}}
{{- define "peregrine.container" -}}
image: {{ include "peregrine.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
envFrom:
  - configMapRef:
      name: {{ include "peregrine.fullname" . }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- include "peregrine.resources" . | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  privileged: false
  capabilities:
    drop: [ALL]
volumeMounts:
  {{- include "peregrine.volumeMounts" . | nindent 2 }}
{{- end -}}

{{/* GPUs are limits; Kubernetes takes the request from them. */}}
{{- define "peregrine.resources" -}}
requests:
  {{- toYaml .Values.resources.requests | nindent 2 }}
{{- $gpus := ternary (dict .Values.gpus.resource .Values.gpus.count) dict (gt (int .Values.gpus.count) 0) }}
{{- with merge $gpus .Values.resources.limits }}
limits:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Startup is sized by the time that a load may take; liveness asks what needs no key and no model. */}}
{{- define "peregrine.probes" -}}
{{- $probes := .Values.probes -}}
startupProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: {{ $probes.startup.periodSeconds }}
  timeoutSeconds: {{ $probes.readiness.timeoutSeconds }}
  failureThreshold: {{ divf $probes.startup.seconds $probes.startup.periodSeconds | ceil }}
readinessProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: {{ $probes.readiness.periodSeconds }}
  timeoutSeconds: {{ $probes.readiness.timeoutSeconds }}
  failureThreshold: {{ $probes.readiness.failureThreshold }}
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: {{ $probes.liveness.periodSeconds }}
  timeoutSeconds: {{ $probes.liveness.timeoutSeconds }}
  failureThreshold: {{ $probes.liveness.failureThreshold }}
{{- end -}}

{{/* Container that answers requests. */}}
{{- define "peregrine.server" -}}
name: server
{{ include "peregrine.container" . }}
args:
  {{- include "peregrine.args" . | nindent 2 }}
ports:
  - name: http
    containerPort: {{ .Values.containerPort }}
{{- if .Values.multiHost.enabled }}
  - name: shards
    containerPort: {{ .Values.multiHost.port }}
{{- end }}
{{ include "peregrine.probes" . }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.termination.preStopSeconds }}
{{- end -}}

{{/* Container with the shards of one worker of a LeaderWorkerSet. It is told to end when the router has drained: a shard
     that ended with SIGTERM, which all pods of a group get at once, would cut the streams of its leader. */}}
{{- define "peregrine.worker" -}}
{{- $shards := int (include "peregrine.podShards" .) -}}
name: shards
{{ include "peregrine.container" . }}
{{- if eq $shards 1 }}
command: [tini, --, peregrine, shard]
args:
  - --router
  - tcp://$(LWS_LEADER_ADDRESS):{{ .Values.multiHost.port }}
  - --rank
  - $(LWS_WORKER_INDEX)
  - --num-shard
  - {{ include "peregrine.numShard" . | quote }}
  - --shard-keys
  - /etc/peregrine/shard-keys/shard.keys
  - --interface
  - {{ .Values.multiHost.interface | quote }}
{{- else }}
command: [tini, -g, --, bash, -c]
args:
  - |
    # A process a rank; the first that ends ends the container, and with it the group. Kubernetes knows no arithmetic.
    first=$(( LWS_WORKER_INDEX * {{ $shards }} ))
    for gpu in $(seq 0 {{ sub $shards 1 }}); do
      peregrine shard --router "tcp://$LWS_LEADER_ADDRESS:{{ .Values.multiHost.port }}" \
        --rank $(( first + gpu )) --num-shard {{ include "peregrine.numShard" . }} --gpu "$gpu" \
        --shard-keys /etc/peregrine/shard-keys/shard.keys --interface {{ .Values.multiHost.interface }} &
    done
    wait -n
{{- end }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ add .Values.termination.preStopSeconds .Values.termination.drainSeconds }}
{{- end -}}
