{{/* What a schema cannot say: values that contradict each other. Each line is: message, whether it is wrong. */}}
{{- define "peregrine.checks" -}}
{{- $hasMonitor := or .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- $replicas := int (include "peregrine.maxReplicas" .) -}}
{{- $readiness := mul .Values.probes.readiness.periodSeconds .Values.probes.readiness.failureThreshold -}}
{{- $liveness := mul .Values.probes.liveness.periodSeconds .Values.probes.liveness.failureThreshold -}}
{{- $podShards := int (include "peregrine.podShards" .) -}}
{{- $checks := list
  (list "weights.type existingClaim: name it in weights.existingClaim"
    (and (eq .Values.weights.type "existingClaim") (not .Values.weights.existingClaim)))
  (list "several pods share the claim of the weights: set weights.accessModes to [ReadWriteMany], or weights.type to another"
    (and (include "peregrine.isOneNode" .) (or (gt $replicas 1) .Values.multiHost.enabled)))
  (list "auth.apiKeys and auth.existingSecret are both set: leave one out"
    (and .Values.auth.apiKeys .Values.auth.existingSecret))
  (list "hub.token and hub.existingSecret are both set: leave one out"
    (and .Values.hub.token .Values.hub.existingSecret))
  (list "Prometheus needs a key where clients do: set auth.metricsKey"
    (and $hasMonitor .Values.auth.apiKeys (not .Values.auth.metricsKey)))
  (list "auth.metricsKey has the form of a SHA-256, as which the server's key file would take it: use a longer or a shorter one"
    (regexMatch "^[0-9a-fA-F]{64}$" .Values.auth.metricsKey))
  (list "auth.metricsKey would be the only key: set auth.apiKeys too"
    (and .Values.auth.metricsKey (not .Values.auth.apiKeys)))
  (list "strategy.maxSurge and strategy.maxUnavailable are both 0: no update could begin"
    (and (has (include "peregrine.maxSurge" .) (list "0" "0%")) (has (include "peregrine.maxUnavailable" .) (list "0" "0%"))))
  (list "autoscaling.maxReplicas is less than autoscaling.minReplicas"
    (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)))
  (list "liveness must wait longer than readiness: raise probes.liveness.periodSeconds or failureThreshold"
    (le $liveness $readiness))
  (list "model.shards is more than gpus.count: each shard needs a GPU"
    (and (gt (int .Values.gpus.count) 0) (gt $podShards (int .Values.gpus.count))))
  (list "multiHost needs multiHost.keysSecret: a Secret whose entry shard.keys is the file that `peregrine keys` makes"
    (and .Values.multiHost.enabled (not .Values.multiHost.keysSecret)))
  (list "multiHost needs weights that every machine mounts: set weights.type to existingClaim, persistentVolumeClaim or hostPath"
    (and .Values.multiHost.enabled .Values.model.id (eq .Values.weights.type "emptyDir")))
  (list "httpRoute needs httpRoute.parentRefs: the Gateway to which it attaches"
    (and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs)))
  (list "ingress.path and httpRoute.path differ: the server has one --root-path"
    (and .Values.ingress.enabled .Values.httpRoute.enabled (ne .Values.ingress.path .Values.httpRoute.path)))
  (list "inferencePool needs inferencePool.endpointPicker: the Service of the endpoint picker"
    (and .Values.inferencePool.enabled (not .Values.inferencePool.endpointPicker)))
-}}
{{- range $checks }}{{ if index . 1 }}{{ fail (printf "values: %s" (index . 0)) }}{{ end }}{{ end -}}
{{- end -}}
