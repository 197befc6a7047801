"""Words of notes near which a person's name stands: what is done with and by people, roles, titles behind names; as parts of patterns."""

from tasks.corpus.deidentify import titles

SCORE_OF_A_PERSON = 0.65  # of a name behind a cue that persons alone have: an eponym is a person there
# What is done with somebody, and what somebody does.
WITH = (
    r"discuss\w*|d/?w|s/?w|sp(?:oke|eak|oken|eaking)|talk(?:ed|ing)?|met|meet(?:ing)?s?|review(?:ed)?|consult(?:ed|ation)?|conferr?(?:ed)?|round(?:s|ed|ing)?"
    r"|visit(?:ed)?|appointment|appt|f/?u|follow[- ]?(?:up|ing|ed|s)?|seen|examined|accompanied|liv(?:es?|ing)|stay(?:s"
    r"|ing)|confirmed|phone call|call"
    r"|conversation|handover|handoff|sign[- ]?out|coordinat\w+|case|conference|session|arrived|here|came|presents"
    r"|scrubbed|working|scheduled"
)
BY = (
    r"seen|examined|evaluated|assessed|referred|accompanied|signed|cosigned|dictated|transcribed|typed|read|interpreted|performed|done|placed"
    r"|inserted|removed|ordered|prescribed|approved|verified|reported|called|paged|witnessed|assisted|attested|entered|recorded|taken|given"
    r"|administered|collected|drawn|reviewed|checked|obtained|provided|told|confirmed|supplied|staffed|supervised|precepted|followed|managed"
    r"|treated|discussed|brought(?: in)?|found|informed|helped|repaired|cared for|written|prepared|completed|edited|note"
    r"|photo|scribed|operation"
    r"|surgery|consult(?:ation)?|report|addendum|addended|dressing|sutured|intubated|admitted|discharged|seen today"
    r"|requested|noted|stated|described"
)
DID = (
    "paged,notified,informed,updated,texted,contacted,asked,told,emailed,phoned,faxed,thank,thank "
    "you,thanks,hi,hello,dear,paging,reported to,"
    "relayed to,endorsed to,handed over to,handed off to,handoff to,sign out to,signed out to,referred to,sent "
    "to,copied to,forwarded to,gave to,"
    "report to,report given to,result given to,results given to,result called to,results called to,care "
    "transferred,care of,appreciate,per,c/o,"
    "attn,according to,on behalf of,daughter of,son of"
).split(",")
CALLED = r"called(?= \p{Lu}\p{L}+ (?:at|to|back|about|regarding|and|for|with|re)\b)"
ROLES = (
    "rn,md,np,pa,pa-c,lpn,lvn,cna,rt,sw,crna,do,rd,cm,ot,pt,slp,emt,sho,ho,resident,intern,fellow,registrar,consultant,attending,surgeon,"
    "anaesthetist,anesthetist,anesthesiologist,midwife,nurse,sister,matron,practitioner,physio,physiotherapist,dietician,dietitian,nutritionist,"
    "pharmacist,therapist,technician,tech,technologist,scribe,interpreter,chaplain,social worker,case "
    "manager,coordinator,pcp,gp,trainee,student,"
    "hospitalist,internist,cardiologist,neurologist,oncologist,urologist,nephrologist,pulmonologist,radiologist,pathologist,pediatrician,"
    "paediatrician,psychiatrist,psychologist,dermatologist,gastroenterologist,endocrinologist,rheumatologist,orthopedist,orthopaedist,dentist,"
    "optometrist,podiatrist,obstetrician,doctor,physician,provider,colleague,leader,recorder,operator,circulator,scrub,doula,sonographer,driver,"
    "sergeant,sgt,detective,judge,father,brother,friend,roommate,officer,paramedic,caregiver,carer,neighbor,neighbour,landlord,boss,coach,teacher,"
    "pastor,rabbi,imam,priest,caseworker,case worker,care co-ordinator,co-ordinator,support "
    "person,parent,parents,pharmd,teammate,hospitalist,"
    "locum,stepfather,stepmother,foster mother,foster "
    "father,pastor,cons,spr,reg,fy1,fy2,f1,f2,ct1,ct2,st1,st2,st3,st4,st5,st6,st7,st8,sn,ssn,hca,cns,hv,oa,anaes,assistant,assistants,odp,mw,lmc,rmo,"
    "jmo,vmo,nok,baby of,sister in charge,on call,on-call,patient,client,named,name is,surname,aka,a.k.a.,née,nee"
).split(",")
ROLE_BEHIND = (
    r"R\.?N|M\.?D|N\.?P|P\.?A(?:-C)?|LPN|LVN|CNA|CRNA|D\.?O|RDN?|RT|OT|PT(?![,/-]? ?(?:INR|a?PTT|APTT)\b)"
    r"|SLP|SW|LCSW|MSW|PharmD|Ph\.?D|D\.?D\.?S|D\.?P\.?M|DPT|APRN|ARNP|FNP(?:-C)?|BSN|MSN|MBBS|MBChB|FRCS|FRCP|FACS|FACP"
    r"|CCC-SLP|RRT|EMT|SHO|PGY-?\d|MS-?[1-4]|MS(?:III|IV)|\(?(?i:son|daughter|wife|husband|mother|father|mom|dad|sister|brother|partner|spouse|niece|nephew"
    r"|friend|neighbou?r|guardian|hcp|poa|aunt|uncle|cousin|grand\w+|granddaughter|caregiver|pt|patient|nurse|resident|intern|fellow|attending|registrar)\)"
)
BEHIND_WORDS = frozenset(
    "r rn m md n np p pa lpn lvn cna crna d do rd rdn rt ot pt slp sw lcsw msw pharmd ph phd dds dpm dpt aprn aprn arnp "
    "fnp bsn msn mbbs mbchb frcs frcp "
    "facs facp ccc rrt emt sho pgy ms msiii msiv son daughter wife husband mother father mom dad sister brother partner "
    "spouse niece nephew friend "
    "neighbor neighbour guardian hcp poa aunt uncle cousin grandmother grandfather grandson granddaughter caregiver "
    "patient nurse resident intern "
    "fellow attending registrar".split()
)
ROLE_IN_BRACKETS = (
    r"RN|MD|NP|PA|CNA|LPN|CRNA|RT|PT|OT|SW|SHO|FY\d|(?i:(?:med|surg|ortho|anaes|anesthesia|gyn\w*|paed\w*|ICU|ITU|ED|cardiac|charge|scrub|staff|night|day|"
    r"cardiology|theatre|recovery|ward|bank|student)?[ ]?(?:reg|registrar|SHO|consultant|nurse|resident|fellow|intern"
    r"|doctor|sister|manager|"
    r"coordinator|physio|doula|midwife|interpreter|carer|paramedic)|ITU|ICU|anaes\w*|surg\w*|ortho\w*)"
)
# What else stands behind "by" in capitals: services, roles, ways to give a drug.
NO_INITIALS = (
    "EMS|KUB|UA|ABD|AXR|PT|OT|RT|RN|MD|NP|PA|IR|ED|ER|GI|ID|ICU|OR|PCP|CT|US|MR|MRI|EEG|EKG|ECG|IV|PO|IM|SC|SQ|ENT|OB|GYN|SLP|SW|CM|LAB|NG|PEG|VA|CNA|LPN|LVN|MA"
    "|GP|SHO|CNS|EMT|PCR|XR|CXR|TTE|TEE|EGD|PET|NIV|CPR|AED|GT|JT|PR|MDT|CVC|OHS|HHN|NICU|PACU|FNA|LP"
)
PERSON_VERBS = (
    "denies|denied|reports|reported|states|stated|complains|complained|endorses|endorsed|presents|presented|admits|lives|smokes|drinks|works|tolerated"
    "|tolerates|refuses|refused|declines|declined|understands|agrees|agreed|verbalizes|verbalized|called|aware|notified|paged|updated|requests|requested"
    "|says|said|tells|told|wants|wanted|feels|felt|ambulated|voided|slept|ate|recommends|recommended|will see|to see|to "
    "follow|following|at bedside"
)
SMALL_CUES = frozenset(titles.KIN_WORDS) | frozenset(
    "grandmother grandfather grandson granddaughter neighbor neighbour dtr hubby by w with per to from called paged thx "
    "thanks hi hello nurse "
    "sister rn md np cna aide tech dr stepson stepdaughter stepmother stepfather".split()
)
BEDS = frozenset("bed rm room bay cubicle cot slot".split())
TYPISTS = frozenset("trans transcribed transcriptionist typist typed dict dictated initials tr".split())
