{{/* Shards of one pod. */}}
{{- define "peregrine.podShards" -}}
{{- .Values.model.shards | default (max 1 (int .Values.gpus.count)) -}}
{{- end -}}

{{/* Shards of the model: of all machines. */}}
{{- define "peregrine.numShard" -}}
{{- mul (include "peregrine.podShards" .) (ternary (int .Values.multiHost.hosts) 1 .Values.multiHost.enabled) -}}
{{- end -}}

{{/* Most replicas that there may be. */}}
{{- define "peregrine.maxReplicas" -}}
{{- ternary .Values.replicas .Values.autoscaling.maxReplicas (eq .Values.autoscaling.type "none") -}}
{{- end -}}

{{/* Whether one node alone mounts the weights. */}}
{{- define "peregrine.isOneNode" -}}
{{- if and (eq .Values.weights.type "persistentVolumeClaim") (not (has "ReadWriteMany" .Values.weights.accessModes)) -}}
true
{{- end -}}
{{- end -}}

{{/* Pods beyond the replicas in an update, as text. */}}
{{- define "peregrine.maxSurge" -}}
{{- $given := toString .Values.strategy.maxSurge -}}
{{- if ne $given "" -}}
{{- $given -}}
{{- else if or (gt (int .Values.gpus.count) 0) (include "peregrine.isOneNode" .) .Values.multiHost.enabled -}}
0
{{- else -}}
1
{{- end -}}
{{- end -}}

{{/* Pods that may be missing in an update, as text. */}}
{{- define "peregrine.maxUnavailable" -}}
{{- $given := toString .Values.strategy.maxUnavailable -}}
{{- if ne $given "" -}}
{{- $given -}}
{{- else if has (include "peregrine.maxSurge" .) (list "0" "0%") -}}
1
{{- else -}}
0
{{- end -}}
{{- end -}}

{{/* Both, for a Deployment and for a LeaderWorkerSet. */}}
{{- define "peregrine.rollingUpdate" -}}
maxSurge: {{ include "peregrine.maxSurge" . }}
maxUnavailable: {{ include "peregrine.maxUnavailable" . }}
{{- end -}}

{{/* Path under which a proxy publishes the server. */}}
{{- define "peregrine.rootPath" -}}
{{- ternary .Values.ingress.path (ternary .Values.httpRoute.path "/" .Values.httpRoute.enabled) .Values.ingress.enabled -}}
{{- end -}}

{{/* Seconds from SIGTERM to SIGKILL, preStop included. */}}
{{- define "peregrine.gracePeriod" -}}
{{- with .Values.termination }}{{ add .preStopSeconds .drainSeconds .marginSeconds }}{{ end -}}
{{- end -}}
