{{/* Pod template: list of the context, the component (server or worker), and its container as text. */}}
{{- define "peregrine.pod" -}}
{{- $root := index . 0 -}}
{{- with $root -}}
metadata:
  labels:
    {{- include "peregrine.labels" (list . (merge (dict "app.kubernetes.io/component" (index $ 1)) .Values.podLabels)) | nindent 4 }}
  annotations:
    # The server reads its options at the start alone: a change of them is a rollout. API keys are read again when they change.
    checksum/config: {{ include "peregrine.environment" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "peregrine.serviceAccount" . | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "peregrine.gracePeriod" . }}
  securityContext:
    runAsNonRoot: true
    {{- if not .Values.openshift }}
    runAsUser: 1000
    runAsGroup: 0
    fsGroup: 0
    fsGroupChangePolicy: OnRootMismatch
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.topologySpread.enabled }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: {{ .Values.topologySpread.topologyKey }}
      whenUnsatisfiable: {{ .Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "peregrine.selector" . | nindent 10 }}
          app.kubernetes.io/component: {{ index $ 1 }}
  {{- end }}
  containers:
    - {{ index $ 2 | indent 6 | trim }}
  volumes:
    {{- include "peregrine.volumes" . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "peregrine.volumes" -}}
- name: data
  {{- include "peregrine.weights" . | nindent 2 }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmp.size }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.shm.size }}
{{- with include "peregrine.keySecret" . }}
- name: api-keys
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
    items:
      - {key: api-keys, path: api-keys}
{{- end }}
{{- with include "peregrine.hubSecret" . }}
- name: hub
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
    items:
      - {key: token, path: token}
{{- end }}
{{- if .Values.multiHost.enabled }}
- name: shard-keys
  secret:
    secretName: {{ .Values.multiHost.keysSecret | quote }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "peregrine.weights" -}}
{{- $weights := .Values.weights -}}
{{- if eq $weights.type "emptyDir" -}}
emptyDir:
  sizeLimit: {{ $weights.size }}
{{- else if eq $weights.type "hostPath" -}}
hostPath:
  path: {{ $weights.hostPath | quote }}
  type: Directory
{{- else -}}
persistentVolumeClaim:
  claimName: {{ ternary $weights.existingClaim (include "peregrine.fullname" .) (eq $weights.type "existingClaim") | quote }}
{{- end -}}
{{- end -}}

{{- define "peregrine.volumeMounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if include "peregrine.keySecret" . }}
- {name: api-keys, mountPath: /etc/peregrine/keys, readOnly: true}
{{- end }}
{{- if include "peregrine.hubSecret" . }}
- {name: hub, mountPath: /etc/peregrine/hub, readOnly: true}
{{- end }}
{{- if .Values.multiHost.enabled }}
- {name: shard-keys, mountPath: /etc/peregrine/shard-keys, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
